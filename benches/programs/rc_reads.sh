#!/bin/sh
# READs of the rc fabric and of perftest by turns, and set-ups of rc, tcp and dc, between two guests with Soft-RoCE;
# tests/rxe/run runs it in both. host-a owns memory and has perftest's servers; host-b READs, and prints what each
# side took, in each round:
#
#   ours KIND JSON     as mitosis-reads prints it
#   peer KIND NUMBER   perftest's: us (typical), MiB/s (average)
#   seen KIND JSON     without a peer; states, once
#
# ROUNDS: how many. KINDs: lat 4 KiB one at a time, polling; event, the same by completion events; 64k and
# 1m, DEPTH at a time, polling; cm-*, perftest's connected as agents are: by rdma-cm, with DEPTH READs on the wire.
# dc is on the software provider.
set -eu
JOB=rc_reads
. /host/files/rc_common.sh
BYTES=33554432
DEPTH=16
LAT_READS=100
READS_64K=100
READS_1M=12
# Seconds that one run of perftest may take; a client that comes before its server listens may hang, or crash.
PEER_S=60

perftest() {
  case $1 in
    lat) echo ib_read_lat -s 4096 -n $LAT_READS -p 18601 ;;
    event) echo ib_read_lat -e -s 4096 -n $LAT_READS -p 18602 ;;
    64k) echo ib_read_bw -s 65536 -n $READS_64K -t $DEPTH -o $DEPTH -p 18603 ;;
    1m) echo ib_read_bw -s 1048576 -n $READS_1M -t $DEPTH -o $DEPTH -p 18604 ;;
    cm-lat) echo ib_read_lat -R -s 4096 -n $LAT_READS -o $DEPTH -p 18605 ;;
    cm-event) echo ib_read_lat -R -e -s 4096 -n $LAT_READS -o $DEPTH -p 18606 ;;
    cm-64k) echo ib_read_bw -R -s 65536 -n $READS_64K -t $DEPTH -o $DEPTH -p 18607 ;;
  esac
}
KINDS="lat event 64k 1m cm-lat cm-event cm-64k"
DC_LIBRARIES=/lib/dc_provider

# A server for each /host/want.N, which names its kind, until its client has it ended or is /host/lost.N; so on
# until /host/over. Between them host-a is as quiet for perftest as for ours.
serve_peers() {
  number=0
  while ! [ -e /host/over ]; do
    if [ -e /host/want.$number ]; then
      kind=$(cat /host/want.$number)
      port=$(perftest "$kind" | sed 's/.* //')
      timeout $PEER_S $(perftest "$kind") -d rxe0 -F >/dev/null 2>&1 &
      server=$!
      until rdma resource show cm_id | grep LISTEN | grep -q ":$port" || netstat -ltn | grep -q ":$port"; do usleep 50000; done
      # The kernel says LISTEN a moment before it does.
      usleep 200000
      : >/host/ready.$number
      while kill -0 $server 2>/dev/null && ! [ -e /host/lost.$number ]; do usleep 20000; done
      kill $server 2>/dev/null || true
      wait $server || true
      number=$((number + 1))
    fi
    usleep 50000
  done
}

cp /host/files/mitosis-reads /bin/
# Another job may be next.
trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT

if [ "$NODE" = 1 ]; then
  mkfifo /tmp/stdin
  sleep 100000 >/tmp/stdin &
  mitosis-reads own "$SELF" $BYTES --rc </tmp/stdin >/host/owner.json &
  LD_LIBRARY_PATH=$DC_LIBRARIES mitosis-reads own "$SELF" $BYTES --rc --dc </tmp/stdin >/host/owner-dc.json &
  while ! [ -s /host/owner.json ] || ! [ -s /host/owner-dc.json ]; do usleep 50000; done
  barrier owned
  serve_peers
  barrier read
  exit 0
fi

# The figure that perftest prints in column $2 of its only row, for kind $1.
wanted=0
peer() {
  tries=0
  while :; do
    echo "$1" >/host/want.new
    mv /host/want.new /host/want.$wanted
    while ! [ -e /host/ready.$wanted ]; do usleep 20000; done
    wanted=$((wanted + 1))
    said=$(timeout $PEER_S $(perftest "$1") -d rxe0 -F "$PEER" 2>/tmp/perftest.err) && break
    : >/host/lost.$((wanted - 1))
    tries=$((tries + 1))
    [ $tries -lt 3 ] || fail "$(perftest "$1") does not run: $(cat /tmp/perftest.err)"
  done
  echo "peer $1 $(echo "$said" | figure "$2")"
}

barrier owned
mkfifo /tmp/asked-rc /tmp/answers-rc /tmp/asked-tcp /tmp/answers-tcp /tmp/asked-dc /tmp/answers-dc
mitosis-reads read rc "$(side /host/owner.json)" --source "$SELF" </tmp/asked-rc >/tmp/answers-rc &
exec 3>/tmp/asked-rc 4</tmp/answers-rc
mitosis-reads read tcp "$(side /host/owner.json)" </tmp/asked-tcp >/tmp/answers-tcp &
exec 5>/tmp/asked-tcp 6</tmp/answers-tcp
LD_LIBRARY_PATH=$DC_LIBRARIES mitosis-reads read dc "$(side /host/owner-dc.json)" </tmp/asked-dc >/tmp/answers-dc &
exec 7>/tmp/asked-dc 8</tmp/answers-dc
# Once, for the connection and what is slow the first time; two rounds are for no figure.
for fabric in rc tcp dc; do ask $fabric serial 4096 20 sleep; ask $fabric setup 1; done
[ "$ROUNDS" = 2 ] || for kind in $KINDS; do peer "$kind" 2 >/dev/null; done

round=0
while [ $round -lt "$ROUNDS" ]; do
  ask rc serial 4096 $LAT_READS spin same; echo "ours lat $answer"; peer lat 5; peer cm-lat 5
  ask rc serial 4096 $LAT_READS sleep same; echo "ours event $answer"; peer event 5; peer cm-event 5
  ask rc window 65536 $READS_64K $DEPTH spin; echo "ours 64k $answer"; peer 64k 4; peer cm-64k 4
  ask rc window 1048576 $READS_1M $DEPTH spin; echo "ours 1m $answer"; peer 1m 4
  # What a connection takes to make: each round begins with another fabric.
  case $((round % 3)) in 0) order="rc tcp dc" ;; 1) order="tcp dc rc" ;; 2) order="dc rc tcp" ;; esac
  for by in $order; do ask "$by" setup 1; echo "seen setup-$by $answer"; done
  ask dc serial 4096 20 spin same; echo "seen lat-dc $answer"
  round=$((round + 1))
done

# And what it takes to keep.
free() { awk '/^MemFree|^Buffers|^Cached|^SReclaimable/ { sum += $2 } END { print sum }' /proc/meminfo; }
sync; echo 3 >/proc/sys/vm/drop_caches; before=$(free)
ask rc hold 64
sync; echo 3 >/proc/sys/vm/drop_caches; after=$(free)
echo "seen state-rc {\"kib\": $((before - after)), \"connections\": 64}"
sync; echo 3 >/proc/sys/vm/drop_caches; before=$(free)
ask dc ways 16384
sync; echo 3 >/proc/sys/vm/drop_caches; after=$(free)
echo "seen state-dc {\"kib\": $((before - after)), \"peers\": 16384}"
: >/host/over
barrier read
