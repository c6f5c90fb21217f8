/* SPDX-License-Identifier: BSD-2-Clause */
/* The first process of a Linux that is to end at once. It begins at
 * power_off(), without a C library. */
#include <linux/reboot.h>
#include <sys/syscall.h>

void power_off(void)
{
    long result = SYS_reboot;
    register long argument __asm__("r10") = 0;
    __asm__ volatile("syscall"
                     : "+a"(result)
                     : "D"(LINUX_REBOOT_MAGIC1), "S"(LINUX_REBOOT_MAGIC2),
                       "d"(LINUX_REBOOT_CMD_POWER_OFF), "r"(argument)
                     : "rcx", "r11", "memory");
    for (;;) {
    }
}
