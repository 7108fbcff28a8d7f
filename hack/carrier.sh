#!/usr/bin/env bash
# A SIP carrier (Kamailio) to register with and to be called from. For tests: it trusts everyone who can reach it.
#
#   hack/carrier.sh [OPTIONS] up                   start it, or restart it when the options changed
#   hack/carrier.sh [OPTIONS] down
#   hack/carrier.sh [OPTIONS] status
#   hack/carrier.sh [OPTIONS] logs
#   hack/carrier.sh [OPTIONS] number NUMBER USER   calls to NUMBER go to the trunk of USER (USER -: forget it)
#   hack/carrier.sh [OPTIONS] fault USER CODE      answer USER's REGISTERs with CODE (CODE -: no more)
#   hack/carrier.sh [OPTIONS] bindings             who is registered, from where
#   hack/carrier.sh [OPTIONS] forget USER          drop USER's bindings
#   hack/carrier.sh [OPTIONS] ctl ARGS...          any other command of kamcmd
#   hack/carrier.sh [OPTIONS] call NUMBER [TRUNK]  a call from the telephone network, 5 s long (needs sipp)
#
# Options, or the variable of the same name in capitals with CARRIER_ before it:
#   --dir DIR         its files                               (default: $STATE/carrier)
#   --netns NAME      network namespace; none: this one       (default: rw-carrier)
#   --address ADDR    where it listens                        (default: 198.51.100.20; 127.0.0.1 with --netns none)
#   --port PORT       UDP and TCP                             (default: 5060)
#   --tls-port PORT   TLS; none: without                      (default: --port + 1)
#   --client-ca FILE  ask for certificates of this authority  (default: ask for none)
#   --users LIST      "user:password user:password ..."       (default: trunk1:secret1 ... trunk9:secret9)
#   --realm REALM     domain of the accounts                  (default: trunk.test)
#   --numbers LIST    "number:user number:user ..."           (default: none)
#   --pstn HOST:PORT  where calls of trunks to numbers go     (default: 404)
#   --relay yes|no   the voice goes through rtpengine        (default: no)
#   --relay-offer F  what rtpengine makes of offers, such as RTP/SAVP (default: nothing)
#   --relay-setup S  what its offers say of who begins a handshake: active or passive (default: actpass)
#   --relay-options O further options of rtpengine, such as --dtls-cert-cipher=RSA (default: none)
#   --follow WHAT     requests to a trunk go to its `contact` (over TLS: the connection of its REGISTER), to the `source`
#                     of its REGISTER, or to its `listener`, the Contact over TLS too        (default: contact)
#   --min-expires S, --max-expires S                          (default: 5, 3600)
#   --children N      worker processes for UDP                (default: 2)
#
# An INVITE with a header X-Provider is a call from the telephone network: no digest; the Request-URI's user is looked
# up in the numbers, or X-Trunk names the trunk's user. The request goes to the Contact that the trunk registered; the
# dialled number stands in To and P-Called-Party-ID (with `X-Called-In: ruri` in the Request-URI too).
set -euo pipefail
# shellcheck source=hack/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=hack/cluster/processes.sh
source "$HACK/cluster/processes.sh"

usage() { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

while [[ ${1:-} = --* ]]; do
    option=${1#--}
    [[ $option != help ]] || { usage; exit; }
    name=CARRIER_${option^^}
    printf -v "${name//-/_}" %s "${2:?a value for $1}"
    shift 2
done

DIR=${CARRIER_DIR:-$STATE/carrier}
NETNS=${CARRIER_NETNS:-rw-carrier}
if [[ $NETNS = none ]]; then ADDRESS=${CARRIER_ADDRESS:-127.0.0.1}; else ADDRESS=${CARRIER_ADDRESS:-198.51.100.20}; fi
PORT=${CARRIER_PORT:-5060}
TLS_PORT=${CARRIER_TLS_PORT:-$((PORT + 1))}
USERS=${CARRIER_USERS:-$(printf 'trunk%d:secret%d ' 1 1 2 2 3 3 4 4 5 5 6 6 7 7 8 8 9 9)}
REALM=${CARRIER_REALM:-trunk.test}
NUMBERS=${CARRIER_NUMBERS:-}
PSTN=${CARRIER_PSTN:-}
FOLLOW=${CARRIER_FOLLOW:-contact}
RELAY=${CARRIER_RELAY:-no}
RELAY_PORT=2223
RELAY_OFFER=${CARRIER_RELAY_OFFER:-}
RELAY_SETUP=${CARRIER_RELAY_SETUP:-}
read -ra RELAY_OPTIONS <<<"${CARRIER_RELAY_OPTIONS:-}"

# Relative paths would mean something else to Kamailio, which changes its folder.
[[ $DIR = /* ]] || DIR=$PWD/$DIR
((${#DIR} < 90)) || die "the path $DIR is too long for a socket"

ctl() { kamcmd -s "unix:$DIR/ctl.sock" "$@"; }

# An IPv6 address stands in brackets, as in a URI.
host() { if [[ $1 = *:* && $1 != \[* ]]; then echo "[$1]"; else echo "$1"; fi; }

listen() {
    local at
    at=$(host "$ADDRESS")
    echo "listen=udp:$at:$PORT"
    echo "listen=tcp:$at:$PORT"
    if [[ $TLS_PORT != none ]]; then
        echo "enable_tls=yes"
        echo "listen=tls:$at:$TLS_PORT"
    fi
}

# render OUT: everything that depends on the options, so that comparing two of them tells whether to restart.
render() {
    local user number
    mkdir -p "$1/dbtext"
    {
        echo '#!KAMAILIO'
        [[ $TLS_PORT = none ]] || echo '#!define WITH_TLS'
        [[ -z $PSTN ]] || echo '#!define WITH_PSTN'
        [[ $FOLLOW != source ]] || echo '#!define FOLLOW_SOURCE'
        [[ $FOLLOW != listener ]] || echo '#!define FOLLOW_LISTENER'
        [[ $RELAY = no ]] || echo '#!define WITH_RELAY'
        [[ -z $RELAY_SETUP ]] || echo '#!define WITH_SETUP'
        sed -e 1d -e "s|@LISTEN@|$(listen | sed -z 's/\n/\\n/g')|" -e "s|@DIR@|$DIR|g" -e "s|@REALM@|$REALM|g" \
            -e "s|@RELAY@|$(host "$ADDRESS"):$RELAY_PORT|" -e "s|@RELAY_OFFER@|$RELAY_OFFER|" -e "s|@RELAY_SETUP@|$RELAY_SETUP|" \
            -e "s|@PSTN_HOST@|${PSTN%:*}|" -e "s|@PSTN_PORT@|${PSTN##*:}|" -e "s|@CHILDREN@|${CARRIER_CHILDREN:-2}|" \
            -e "s|@MIN_EXPIRES@|${CARRIER_MIN_EXPIRES:-5}|" -e "s|@MAX_EXPIRES@|${CARRIER_MAX_EXPIRES:-3600}|" \
            "$HACK/carrier/kamailio.cfg.in"
    } >"$1/kamailio.cfg"
    {
        echo 'username(string) domain(string) password(string) ha1(string) ha1b(string)'
        # db_text separates columns by colons. The hashes are computed from the password.
        for user in $USERS; do echo "${user%%:*}:$REALM:${user#*:}:x:x"; done
    } >"$1/dbtext/subscriber"
    printf 'table_name(string) table_version(int)\nsubscriber:7\nlocation:9\n' >"$1/dbtext/version"
    for number in $NUMBERS; do echo "$number"; done >"$1/numbers"
    # With its inode: a namespace of the same name after a restart of the cluster is another one.
    echo "$NETNS $(stat -Lc %i "/run/netns/$NETNS" 2>/dev/null)" >"$1/netns"
}

verification() {
    if [[ -n ${CARRIER_CLIENT_CA:-} ]]; then
        printf 'verify_certificate = yes\nrequire_certificate = yes\nca_list = %s' "$CARRIER_CLIENT_CA"
    else
        echo "verify_certificate = no"
    fi
}

make_certificate() {
    [[ ! -e $DIR/tls.cfg ]] || return 0
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=test carrier CA" \
        -keyout "$DIR/ca.key" -out "$DIR/ca.crt" 2>/dev/null
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=sip.carrier.test" \
        -keyout "$DIR/tls.key" 2>/dev/null |
        openssl x509 -req -CA "$DIR/ca.crt" -CAkey "$DIR/ca.key" -set_serial 1 -days 3650 -out "$DIR/tls.crt" \
            -extfile <(echo "subjectAltName=DNS:sip.carrier.test,DNS:carrier.test,DNS:localhost,IP:$ADDRESS") 2>/dev/null
    printf '[%s:default]\nmethod = TLSv1.2+\n%s\nprivate_key = %s\ncertificate = %s\n\n' \
        server "$(verification)" "$DIR/tls.key" "$DIR/tls.crt" \
        client "verify_certificate = no" "$DIR/tls.key" "$DIR/tls.crt" >"$DIR/tls.cfg"
}

relay_listens() {
    local enter=(nsenter --net="/run/netns/$NETNS")
    [[ $NETNS != none ]] || enter=()
    "${enter[@]}" ss -Hlun "src $(host "$ADDRESS"):$RELAY_PORT" | grep -q .
}

# Without its kernel module: packets go through the process. Without the system's settings: these have ports that all relays would share.
start_relay() {
    command -v rtpengine >/dev/null || die "no rtpengine: run hack/setup.sh --sip"
    spawn rtpengine "$NETNS" rtpengine --config-file=none --foreground --log-stderr --log-level=6 --delete-delay=0 --table=-1 --num-threads=1 \
        --interface="$ADDRESS" --listen-ng="$(host "$ADDRESS"):$RELAY_PORT" --port-min=30000 --port-max=30999 "${RELAY_OPTIONS[@]}"
    wait_for 30 "start of the relay" relay_listens || { tail -n 5 "$DIR/logs/rtpengine.log" >&2 && return 1; }
}

answers() { alive kamailio && ctl core.uptime; }

up() {
    local wanted number
    command -v kamailio >/dev/null || die "no Kamailio: run hack/setup.sh --sip"
    [[ $NETNS = none || -e /run/netns/$NETNS ]] || die "no network namespace $NETNS: run hack/cluster.sh up, or give --netns"
    mkdir -p "$DIR"/{logs,pids}
    exec 9>"$DIR/lock"
    flock 9
    wanted=$(mktemp -d)
    render "$wanted"
    if [[ -d $DIR/rendered ]] && diff -r "$wanted" "$DIR/rendered" >/dev/null && answers >/dev/null 2>&1; then
        rm -rf "$wanted"
        return
    fi
    stop
    [[ $(cat "$DIR/tls-address" 2>/dev/null) = "$ADDRESS" ]] || rm -f "$DIR/tls.cfg"
    make_certificate
    echo "$ADDRESS" >"$DIR/tls-address"
    rm -rf "$DIR/rendered" "$DIR/dbtext"
    mv "$wanted" "$DIR/rendered"
    cp -r "$DIR/rendered/dbtext" "$DIR/dbtext"
    : >"$DIR/logs/kamailio.log"
    [[ $RELAY = no ]] || start_relay
    spawn kamailio "$NETNS" kamailio -f "$DIR/rendered/kamailio.cfg" -Y "$DIR" -DD -E -m 64 -M 8
    if ! wait_for 10 "start of the carrier" answers; then
        tail -n 5 "$DIR/logs/kamailio.log" >&2
        return 1
    fi
    for number in $NUMBERS; do set_number "${number%%:*}" "${number#*:}"; done
    say "carrier at $ADDRESS:$PORT (UDP, TCP)$([[ $TLS_PORT = none ]] || echo ", $TLS_PORT (TLS, CA $DIR/ca.crt)"), namespace $NETNS"
}

# Kamailio's processes are one group. The first of them may be gone already, so each is known by our configuration.
stop() {
    local group pids
    [[ ! -e $DIR/pids/rtpengine ]] || { kill_process rtpengine && rm -f "$DIR/pids/rtpengine"; }
    [[ -e $DIR/pids/kamailio ]] || return 0
    group=$(process_id kamailio)
    mapfile -t pids < <(pgrep -g "$group" -f -- "-f $DIR/rendered/kamailio.cfg")
    ((${#pids[@]} == 0)) || kill -9 "${pids[@]}" 2>/dev/null || true
    kill_process kamailio
    rm -f "$DIR/ctl.sock" "$DIR/pids/kamailio"
}

# The s: before a value tells kamcmd that it is a string though it looks like a number.
set_number() {
    if [[ $2 = - ]]; then ctl htable.delete numbers "s:$1"; else ctl htable.sets numbers "s:$1" "s:$2"; fi >/dev/null
}

set_fault() {
    if [[ $2 = - ]]; then ctl htable.delete faults "s:$1"; else ctl htable.seti faults "s:$1" "$2"; fi >/dev/null
}

bindings() {
    ctl ul.dump | awk '
        $1 == "AoR:" { user = $2 }
        $1 == "Address:" { contact = $2 }
        $1 == "Expires:" { expires = $2 }
        $1 == "Received:" { print user, contact, "expires in " expires " s", $2 == "[not" ? "" : "sent to " $2 }'
}

call() {
    local enter=(nsenter --net="/run/netns/$NETNS")
    [[ $NETNS != none ]] || enter=()
    "${enter[@]}" sipp "$ADDRESS:$PORT" -sf "$HACK/carrier/call.xml" -s "$1" -key trunk "${2:-}" -i "$ADDRESS" \
        -m 1 -d 5000 -timeout 30s -recv_timeout 20000 -nostdin -trace_err -error_file "$DIR/logs/call.log" >/dev/null 2>&1 ||
        die "the call failed; $(grep -o "received 'SIP/2.0.*" "$DIR/logs/call.log" 2>/dev/null || echo "see $DIR/logs/call.log")"
    say "answered and ended after 5 s"
}

command=${1:-}
shift || true
case $command in
up) up ;;
down) stop ;;
status) if answers >/dev/null 2>&1; then echo "running, pid $(process_id kamailio)"; else echo stopped; exit 1; fi ;;
logs) tail -n 100 "$DIR/logs/kamailio.log" ;;
number) set_number "${1:?which number?}" "${2:?which user?}" ;;
fault) set_fault "${1:?which user?}" "${2:?which status code?}" ;;
bindings) bindings ;;
forget) ctl ul.rm location "${1:?which user?}" ;;
ctl) ctl "$@" ;;
call) call "${1:?which number?}" "${2:-}" ;;
*) usage; [[ $command = -h ]] ;;
esac
