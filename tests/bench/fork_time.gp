# SPDX-License-Identifier: BSD-2-Clause
#
# Time of a fork over the size of the memory that is forked. Needs `dir`; reads fork_time.dat there,
# one block of "GiB us colour" per series, and writes fork_time.svg beside it.

set terminal svg size 900,600 font "Helvetica,15" background "white" noenhanced
set output dir."/fork_time.svg"
data = dir."/fork_time.dat"

set title "Time of a fork, by size of the memory"
set logscale x 2
set logscale y 10
set xlabel "memory (log scale)" offset 0,-0.3
set ylabel "time of the fork (median, log scale)"
set xtics nomirror ("256 MiB" 0.25, "" 0.5, "1 GiB" 1, "" 2, "4 GiB" 4, "" 8, "16 GiB" 16, "" 32, \
    "64 GiB" 64, "" 128, "256 GiB" 256, "" 512, "1 TiB" 1024)
set ytics nomirror ("10 ns" 0.01, "100 ns" 0.1, "1 us" 1, "10 us" 10, "100 us" 100, "1 ms" 1e3, \
    "10 ms" 1e4, "100 ms" 1e5, "1 s" 1e6)
set border 3
set grid ytics lc rgb "#dddddd" lw 1
set offsets graph 0.03, graph 0.03, 0, 0
set bmargin 8
set key at screen 0.52, screen 0.13 top center vertical maxrows 3 Left reverse samplen 2.5

stats data using 2 nooutput
lowest = 10 ** (floor(log10(STATS_min / 2)))
highest = 10 ** (ceil(log10(STATS_max)))
set yrange [lowest:highest]

array colours[8] = ["#d55e00", "#e69f00", "#56708a", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", \
    "#000000"]
array shapes[8] = [5, 9, 13, 7, 11, 4, 6, 8]
plot for [i = 0:(STATS_blocks < 8 ? STATS_blocks : 8) - 1] data index i using 1:2 \
    with linespoints lw 2.5 ps 0.9 pt shapes[i + 1] lc rgb colours[i + 1] title columnheader(1)
