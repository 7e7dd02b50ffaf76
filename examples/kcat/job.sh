#!/bin/sh
# Publishes an inspection job and prints its result as JSON.
#
#   job.sh json IMAGE
#   job.sh confluent|single-object          publishes inspect-minimal.single-object, which was encoded before
#
# kcat writes any bytes but reads text only: the workers run with --result-format json.
# GUESTKIT_BOOTSTRAP_SERVERS, GUESTKIT_SCHEMA_REGISTRY_URL and GUESTKIT_TOPIC_PREFIX say where.
set -eu

servers=${GUESTKIT_BOOTSTRAP_SERVERS:-127.0.0.1:9092}
registry=${GUESTKIT_SCHEMA_REGISTRY_URL:-http://127.0.0.1:8081/apis/ccompat/v7}
prefix=${GUESTKIT_TOPIC_PREFIX:-vm-operations}
encoded=$(dirname -- "$0")/inspect-minimal.single-object
tries=60 # of a second each

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

publish() { # job id, content type, file
    kcat -P -q -b "$servers" -t "$prefix.jobs" -X enable.idempotence=true -k "$1" -H "content-type=$2" "$3"
}

# A job id is one job, however often it is published: what was encoded before has its result once.
id=inspect-minimal-0001
since=beginning
case ${1-} in
json)
    id=$(cat /proc/sys/kernel/random/uuid)
    since=s@$(date +%s)000
    cat >"$work/job" <<JSON
{"version": "1.0", "job_id": "$id", "created_at": "$(date -u +%Y-%m-%dT%H:%M:%SZ)", "kind": "VMOperation",
 "operation": "guestkit.inspect",
 "payload": {"type": "guestkit.inspect.v1", "data": {"image": {"path": "${2:?an image}"}}}}
JSON
    publish "$id" application/json "$work/job"
    ;;
single-object)
    publish "$id" application/avro "$encoded"
    ;;
confluent)
    # 00 and the registry's id of the schema instead of C3 01 and its fingerprint; the record is the same.
    schema=$(curl -fsS "$registry/subjects/$prefix.jobs-value/versions/latest" | grep -o '"id":[0-9]*' | cut -d: -f2)
    hex=$(printf '%08x' "$schema")
    {
        printf '\000'
        while [ -n "$hex" ]; do
            printf "\\$(printf '%03o' "0x${hex%"${hex#??}"}")"
            hex=${hex#??}
        done
        tail -c +11 "$encoded"
    } >"$work/job"
    publish "$id" application/avro "$work/job"
    ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

while [ $tries -gt 0 ]; do
    kcat -C -q -b "$servers" -t "$prefix.results" -X isolation.level=read_committed -o "$since" -e -f '%k %s\n' >"$work/results"
    result=$(sed -n "s/^$id //p" "$work/results" | head -n 1)
    if [ -n "$result" ]; then
        printf '%s\n' "$result"
        case $result in
        *'"status":"completed"'*) exit 0 ;;
        esac
        exit 1
    fi
    tries=$((tries - 1))
    sleep 1
done
echo "no result of $id" >&2
exit 1
