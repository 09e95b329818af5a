#!/usr/bin/env bash
# Submit one image and print its verdict. Needs bash and curl 7.76.
# Usage: submit.sh IMAGE RECIPE PART_ID     (LINEWATCH_URL, LINEWATCH_API_KEY)
set -euo pipefail

url=${LINEWATCH_URL:-http://127.0.0.1:8000}
image=$1 recipe=$2 part_id=$3
options=(--silent --show-error --fail-with-body --retry 10 --retry-connrefused --max-time 90)
[ -z "${LINEWATCH_API_KEY:-}" ] || options+=(-H "Authorization: Bearer $LINEWATCH_API_KEY")

# The key is the same for every retry, so the image is inspected once. curl waits for Retry-After by itself.
accepted=$(curl "${options[@]}" -H "Idempotency-Key: $HOSTNAME-$$-$(date +%s%N)" \
    -F "image=@$image" -F "recipe=$recipe" -F "part_id=$part_id" "$url/v1/inspections") || { echo "$accepted" >&2; exit 1; }
id=$(sed -E 's/^\{"id":"([0-9a-f-]+)".*/\1/' <<< "$accepted")

result=$(curl "${options[@]}" "$url/v1/inspections/$id?wait=60") || { echo "$result" >&2; exit 1; }
sed -E 's/.*"effective_verdict":"?(ok|ng|review|null)"?.*/\1/' <<< "$result"
