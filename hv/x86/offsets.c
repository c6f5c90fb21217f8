/* SPDX-License-Identifier: BSD-2-Clause */
/* Offsets for the .S files. Compiled to assembly only; its lines marked @@ become offsets.h. */
#include "hvm.h"

#define OFFSET(name, type, field)                                                                  \
    __asm__ volatile("@@ #define " #name " %c0" : : "i"(offsetof(type, field)))

void offsets(void);

void offsets(void)
{
    OFFSET(REGISTERS_RAX, struct hvm_registers, rax);
    OFFSET(REGISTERS_RCX, struct hvm_registers, rcx);
    OFFSET(REGISTERS_RDX, struct hvm_registers, rdx);
    OFFSET(REGISTERS_RBX, struct hvm_registers, rbx);
    OFFSET(REGISTERS_RBP, struct hvm_registers, rbp);
    OFFSET(REGISTERS_RSI, struct hvm_registers, rsi);
    OFFSET(REGISTERS_RDI, struct hvm_registers, rdi);
    OFFSET(REGISTERS_R8, struct hvm_registers, r8);
    OFFSET(REGISTERS_R9, struct hvm_registers, r9);
    OFFSET(REGISTERS_R10, struct hvm_registers, r10);
    OFFSET(REGISTERS_R11, struct hvm_registers, r11);
    OFFSET(REGISTERS_R12, struct hvm_registers, r12);
    OFFSET(REGISTERS_R13, struct hvm_registers, r13);
    OFFSET(REGISTERS_R14, struct hvm_registers, r14);
    OFFSET(REGISTERS_R15, struct hvm_registers, r15);
}
