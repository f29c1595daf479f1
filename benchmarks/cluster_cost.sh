#!/bin/bash
# CPU per token of a deployment on a Redis Cluster: benchmarks/cluster_cost.sh N… (1 = one server, not a Cluster).
# 150 turns (TURNS) x 50 tokens/s for 20 s, one gateway, one worker; all that the load costs, by the tokens of its 20 s. Needs redis-server >= 7 and redis-cli. BIN: the folder of
# selfhost-transport, by default that of the environment.
set -u
turns=${TURNS:-150}
bin=${BIN:-$(dirname "$(command -v selfhost-transport)")}

free_base() { python3 -c 'import random; print(random.randrange(12000, 19000, 200))'; }
ticks() { for p in "$@"; do awk '{print $14+$15}' "/proc/$p/stat"; done | awk '{s+=$1} END {print s+0}'; }
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
    local r1 g1 w1 r2 g2 w2
    r1=$(ticks $servers) g1=$(ticks $g) w1=$(ticks $w)
    timeout 150 "$bin/selfhost-transport" loadtest --url "http://127.0.0.1:$((base + 150))" --key dev.local:development-secret \
        --turns "$turns" --rate 50 --tokens 200 --duration 20 --warmup 4 --json "$dir/o.json" >"$dir/load.log" 2>&1
    rc=$?
    r2=$(ticks $servers) g2=$(ticks $g) w2=$(ticks $w)
    [ $rc = 0 ] || tail -n 3 "$dir/load.log"
    python3 -c "
import json
t = json.load(open('$dir/o.json'))['tokens']
print('nodes $n: redis', round(($r2-$r1)*10000/t, 1), 'gateway', round(($g2-$g1)*10000/t, 1), 'worker', round(($w2-$w1)*10000/t, 1), f'us per token of {t}')"
    kill $g $w; wait $g $w 2>/dev/null
    kill $servers; wait $servers 2>/dev/null
    rm -rf "$dir"
}

for n in "$@"; do measure "$n"; done
