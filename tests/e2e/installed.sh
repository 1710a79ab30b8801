#!/usr/bin/env bash
# SPDX-License-Identifier: MPL-2.0
# What is installed is enough to build docs/examples/hello_client.c and hello_worker.c, by pkg-config
# and by CMake's find_package(), wherever it lies; every public function has its page.
#
# usage: installed.sh BIN SOURCES BUILD CC [FLAG...]    (FLAG: what the library was built with)
root=$(cd "$2" && pwd)
build=$(cd "$3" && pwd)
source "$(dirname "$0")/support.sh"
compiler=$4
flags=("${@:5}")
prefix=$work/moved

step "install, and move it"
cmake --install "$build" --prefix "$work/first" >"$work/install.log" 2>&1 || fail "cmake --install"
mv "$work/first" "$prefix"
header=$(find "$prefix" -path '*/treadle/client.h')
[[ -n $header ]] || fail "no header"

step "a page for each public function"
for name in $(sh "$root/tests/tidy/public_functions.sh" "$(dirname "$header")"/*.h); do
    [[ -f $prefix/share/man/man3/$name.3 ]] || fail "no page $name(3)"
done

start_broker
start_worker w1 wc.count -- wc -w

then_it_works() { # PROGRAM
    LD_LIBRARY_PATH=$(dirname "$(find "$prefix" -name libtreadle.so)") "$1" wc.count 'a b c' >"$out" 2>"$err" </dev/null ||
        fail "$1 fails"
    then_stdout_has ' succeeded: 3'
}

step "pkg-config"
PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name treadle.pc)")
export PKG_CONFIG_PATH
read -ra package <<<"$(pkg-config --cflags --libs treadle)"
"$compiler" -std=c17 -pedantic -Wall -Wextra -Werror "${flags[@]}" -o by_pkg_config "$root/docs/examples/hello_client.c" \
    "${package[@]}" >"$work/compile.log" 2>&1 || fail "does not compile by pkg-config"
then_it_works "$work/by_pkg_config"

step "a worker, the same way"
"$compiler" -std=c17 -pedantic -Wall -Wextra -Werror "${flags[@]}" -o hello_worker "$root/docs/examples/hello_worker.c" \
    "${package[@]}" >"$work/compile.log" 2>&1 || fail "the worker does not compile by pkg-config"
LD_LIBRARY_PATH=$(dirname "$(find "$prefix" -name libtreadle.so)") start hello "$work/hello_worker"
cli run hello.greet Ada
then_exit 0
then_stdout_is 'Hello, Ada!'

step "find_package"
mkdir consumer
cat >consumer/CMakeLists.txt <<END
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C)
find_package(treadle 0.1 REQUIRED)
add_executable(by_cmake $root/docs/examples/hello_client.c)
target_link_libraries(by_cmake PRIVATE treadle::treadle)
END
cmake -S consumer -B consumer/build -DCMAKE_C_COMPILER="$compiler" -DCMAKE_C_FLAGS="${flags[*]}" \
    -DCMAKE_PREFIX_PATH="$prefix" >"$work/configure.log" 2>&1 || fail "find_package(treadle)"
cmake --build consumer/build >"$work/compile.log" 2>&1 || fail "does not compile by CMake"
then_it_works "$work/consumer/build/by_cmake"
