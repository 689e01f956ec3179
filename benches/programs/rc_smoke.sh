#!/bin/sh
# All jobs of benches in one boot, one after the other; a line `job NAME 0` stands in front of what each prints.
set -eu
for job in rc_reads rc_forks; do
  [ "$NODE" = 1 ] || echo "job $job.sh 0"
  sh /host/files/$job.sh
  barrier "over-$job"
done
