#!/bin/bash
# CPU per token of a deployment on a Redis Cluster: benchmarks/cluster_cost.sh N… (1 = one server, not a Cluster).
# With PER_SERVER=13 each number of servers gets 13 turns for each of them: does a token get dearer because there are more?
# 150 turns (TURNS) x 50 tokens/s for 20 s (SECONDS_LONG), one gateway, one worker; all that the load costs, by the tokens of
# those seconds. The second line is less what the same processes use in 5 s of idleness before: each server of a Cluster has a
# timer and talks to all others. Needs redis-server >= 7 and redis-cli. BIN: the folder of selfhost-transport, by default
# that of the environment.
set -u
turns=${TURNS:-150}
seconds=${SECONDS_LONG:-20}
bin=${BIN:-$(dirname "$(command -v selfhost-transport)")}

free_base() { python3 -c 'import random; print(random.randrange(12000, 19000, 200))'; }
ticks() { for p in "$@"; do awk '{print $14+$15}' "/proc/$p/stat"; done | awk '{s+=$1} END {print s+0}'; }
counted() { # of all servers on ports $1…$2: the sum of a field of INFO stats
    for p in $(seq "$1" "$2"); do redis-cli -p "$p" info stats | awk -F: -v f="$3" '$1 == f {print $2 + 0}'; done | awk '{s+=$1} END {print s+0}'
}
await() { for _ in $(seq 300); do "$@" >/dev/null 2>&1 && return; sleep 0.2; done; return 1; }
serves() { redis-cli -p "$1" cluster info | grep -q cluster_state:ok; }

measure() {
    local n=$1 dir base url servers="" enabled=no g w l rc
    dir=$(mktemp -d) base=$(free_base)
    [ "$n" -gt 1 ] && enabled=yes
    for i in $(seq 0 $((n - 1))); do
        mkdir "$dir/$i"
        (cd "$dir/$i" && exec redis-server --port $((base + i)) --bind 127.0.0.1 --save '' --appendonly no --cluster-enabled $enabled >log 2>&1) &
        servers="$servers $!"
    done
    for i in $(seq 0 $((n - 1))); do await redis-cli -p $((base + i)) ping; done
    url="redis://127.0.0.1:$base/0"
    if [ "$n" -gt 1 ]; then
        redis-cli --cluster create $(for i in $(seq 0 $((n - 1))); do echo 127.0.0.1:$((base + i)); done) --cluster-yes >/dev/null
        for i in $(seq 0 $((n - 1))); do await serves $((base + i)); done
        url="redis+cluster://127.0.0.1:$base"
    fi
    printf '[[keys]]\nname = "dev.local"\nsecret = "development-secret"\n[[namespaces]]\nid = "*"\nagent = "assistant"\n' >"$dir/c.toml"
    "$bin/selfhost-transport" gateway --redis "$url" --port $((base + 150)) --config "$dir/c.toml" >"$dir/gateway.log" 2>&1 & g=$!
    "$bin/selfhost-transport" worker --redis "$url" --config "$dir/c.toml" >"$dir/worker.log" 2>&1 & w=$!
    await curl -fs "http://127.0.0.1:$((base + 150))/readyz"
    await grep -q 'ready worker' "$dir/worker.log"
    local r0 g0 w0 r1 g1 w1 r2 g2 w2 t1 t2
    sleep 1
    r0=$(ticks $servers) g0=$(ticks $g) w0=$(ticks $w)
    sleep 5
    local c1 i1 o1 c2 i2 o2 last=$((base + n - 1))
    c1=$(counted $base $last total_commands_processed) i1=$(counted $base $last total_reads_processed) o1=$(counted $base $last total_writes_processed)
    t1=$(date +%s.%N)
    r1=$(ticks $servers) g1=$(ticks $g) w1=$(ticks $w)
    timeout 150 "$bin/selfhost-transport" loadtest --url "http://127.0.0.1:$((base + 150))" --key dev.local:development-secret \
        --turns "$turns" --rate 50 --tokens 200 --duration "$seconds" --warmup 4 --json "$dir/o.json" >"$dir/load.log" 2>&1
    rc=$?
    r2=$(ticks $servers) g2=$(ticks $g) w2=$(ticks $w)
    t2=$(date +%s.%N)
    c2=$(counted $base $last total_commands_processed) i2=$(counted $base $last total_reads_processed) o2=$(counted $base $last total_writes_processed)
    [ $rc = 0 ] || tail -n 3 "$dir/load.log"
    python3 -c "
import json
tokens, wall = json.load(open('$dir/o.json'))['tokens'], $t2 - $t1
def show(what, *used):
    print(f'nodes $n: {what}', *(f'{name} {ticks * 10000 / tokens:.1f}' for name, ticks in zip(('redis', 'gateway', 'worker'), used)), f'us per token of {tokens}', flush=True)
idle = [($r1 - $r0) / 5, ($g1 - $g0) / 5, ($w1 - $w0) / 5]
raw = [$r2 - $r1, $g2 - $g1, $w2 - $w1]
show('all      ', *raw)
print(f'nodes $n: per token, in all servers: {($c2 - $c1) / tokens:.2f} commands, {($i2 - $i1) / tokens:.2f} reads, {($o2 - $o1) / tokens:.2f} writes')
show('less idle', *(used - wall * each for used, each in zip(raw, idle)))"
    kill $g $w; wait $g $w 2>/dev/null
    kill $servers; wait $servers 2>/dev/null
    rm -rf "$dir"
}

for n in "$@"; do
    [ -z "${PER_SERVER:-}" ] || turns=$((PER_SERVER * n))
    measure "$n"
done
