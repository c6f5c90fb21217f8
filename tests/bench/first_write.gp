# SPDX-License-Identifier: BSD-2-Clause
#
# Cost of the first write after a fork. Needs `dir`; reads first_write.dat there, one bar of
# "label us colour" per line from the top, and writes first_write.svg beside it.

data = dir."/first_write.dat"
stats data using 2 nooutput
bars = STATS_records
lowest = 10 ** (floor(log10(STATS_min)))
highest = 10 ** (ceil(log10(STATS_max * 2)))

set terminal svg size 900,(130 + 40 * bars) font "Helvetica,15" background "white" noenhanced
set output dir."/first_write.svg"
set title "First write after a fork"
set logscale x 10
set xrange [lowest:highest]
set yrange [bars - 0.4:-0.6]
set xlabel "time of one write (median, log scale)" offset 0,-0.3
set xtics nomirror ("10 ns" 0.01, "100 ns" 0.1, "1 us" 1, "10 us" 10, "100 us" 100, "1 ms" 1e3, \
    "10 ms" 1e4)
set ytics scale 0 nomirror
set border 3
set grid xtics lc rgb "#dddddd" lw 1
set style fill solid 1.0 noborder
unset key
set lmargin 38

colour(kind) = kind == 0 ? 0xe69f00 : kind == 1 ? 0x0072b2 : 0x999999
in_words(us) = us < 1 ? sprintf("%.0f ns", us * 1000) : us < 1000 ? sprintf("%.3g us", us) : \
    sprintf("%.3g ms", us / 1000)
plot data using (lowest):0:(lowest):2:($0 - 0.33):($0 + 0.33):(colour($3)):ytic(1) \
        with boxxyerror lc rgb variable, \
    data using 2:0:(in_words($2)) with labels left offset 0.6,0
