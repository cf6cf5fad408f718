#!/usr/bin/env bash
# deploy/secrets.sh FOLDER NAME...: an authority, a certificate for the names or IP addresses, an admin's token, a
# database password.
# For trying it out, and as a list of what there must be; a team has an authority and a vault of its own.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 FOLDER NAME..." >&2; exit 2; }
folder=$1; shift
[ ! -e "$folder" ] || { echo "error: $folder exists. Remove it, or name another." >&2; exit 2; }
umask 077
mkdir -p "$folder"
cd "$folder"
made=$PWD
trap 'status=$?; cd /; [ $status = 0 ] || { cat "$made/openssl.log" >&2; rm -rf "$made"; }' EXIT
# In a folder of its own: a secret that is made of this one's files is without it.
mkdir authority
openssl req -x509 -newkey rsa:3072 -nodes -days 3650 -subj "/CN=iterpo authority" -keyout authority/key.pem -out authority.pem 2>openssl.log
names=
for name in "$@"; do
    case $name in *:*) names+=,IP:$name ;; *[!0-9.]*) names+=,DNS:$name ;; *) names+=,IP:$name ;; esac
done
openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj "/CN=$1" -CA authority.pem -CAkey authority/key.pem \
    -addext "subjectAltName=IP:127.0.0.1$names" -addext "basicConstraints=critical,CA:FALSE" \
    -keyout server.key -out server.pem 2>openssl.log
rm openssl.log
token="iterpo_$(openssl rand -hex 32)"
printf '%s' "$token" > token
printf 'sha256:%s = admin\n' "$(printf '%s' "$token" | sha256sum | cut -d' ' -f1)" > tokens
openssl rand -hex 24 | tr -d '\n' > postgresql_password
# Containers read them as user 10001. Who is not root cannot give files away: then everybody on this machine may read.
if [ "$(id -u)" = 0 ]; then chown 10001 tokens token server.key postgresql_password; else chmod 644 tokens token server.key postgresql_password; fi
chmod 644 server.pem authority.pem
echo "made in $made: $(ls | tr '\n' ' ')"
