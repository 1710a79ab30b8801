/* SPDX-License-Identifier: MPL-2.0 */
#include "client/cli/fault.h"

#include <string.h>

#include "client/cli/options.h"

struct fault_rule {
    enum cli_exit code;
    bool is_about_keys;
    const char *text;
    const char *advice; /* for a broker elsewhere */
};

/* clang-format off */
static const struct fault_rule rules[TRANSPORT_FAULT_COUNT] = {
    [TRANSPORT_FAULT_NONE] = {CLI_UNAVAILABLE, false, "what listens there does not answer as a broker",
        "check --broker; if it is the right one, see its log, and what keeps its host busy"},
    [TRANSPORT_FAULT_UNRESOLVED] = {CLI_UNAVAILABLE, false, "the host is not known",
        "check the host's name in --broker, and that this machine can look it up: getent hosts HOST"},
    [TRANSPORT_FAULT_NOTHING_LISTENS] = {CLI_UNAVAILABLE, false, "nothing listens there", "check --broker, and that treadled runs there"},
    [TRANSPORT_FAULT_UNREACHABLE] = {CLI_UNAVAILABLE, false, "there is no way to the host",
        "check the network and the firewall of this machine: ip route get ADDRESS"},
    [TRANSPORT_FAULT_FORBIDDEN] = {CLI_REFUSED, false, "this user may not open the path",
        "run this as the user who runs treadled, or connect with keys to its tcp:// endpoint, if it has one"},
    [TRANSPORT_FAULT_NOT_ZEROMQ] = {CLI_UNAVAILABLE, false, "what listens there does not speak ZeroMQ", "another program has this port: check --broker"},
    [TRANSPORT_FAULT_SILENT] = {CLI_UNAVAILABLE, false, "what listens there does not answer",
        "see whether it is stopped or overloaded, another program, or behind a firewall or tunnel"},
    [TRANSPORT_FAULT_WANTS_KEYS] = {CLI_CONFIG, true, "the broker wants keys, and none were given here",
        "give its .pub file with --server-key, and your own key with --identity, or have them in ~/.config/treadle as "
        "server.pub and identity.key (make one with: treadle key gen identity --dir ~/.config/treadle)"},
    [TRANSPORT_FAULT_IS_PLAIN] = {CLI_CONFIG, true, "the broker has no keys, and a server key was given here",
        "check --broker; if it is the right one, have it given keys (treadled.conf(5)), or, where nobody can listen, "
        "go without: --server-key none"},
    [TRANSPORT_FAULT_SERVER_KEY] = {CLI_CONFIG, true, "the broker has another server key than was given here",
        "get the .pub file from who runs the broker and give it with --server-key; if that was right "
        "before, somebody may be between you and the broker"},
    [TRANSPORT_FAULT_NOT_ADMITTED] = {CLI_REFUSED, true, "the broker does not admit this key",
        "have who runs the broker add it to the principals and reload"},
    [TRANSPORT_FAULT_LOST] = {CLI_UNAVAILABLE, false, "the connection was lost", "check that treadled still runs there"},
};
/* clang-format on */

enum cli_exit fault_exit(enum transport_fault fault)
{
    return rules[fault].code;
}

const char *fault_text(enum transport_fault fault)
{
    return rules[fault].text;
}

bool fault_is_about_keys(enum transport_fault fault)
{
    return rules[fault].is_about_keys;
}

static bool is_here(const char *endpoint)
{
    return strncmp(endpoint, "ipc:", 4) == 0 || strstr(endpoint, "//127.") != NULL ||
           strstr(endpoint, "//localhost:") != NULL || strstr(endpoint, "//[::1]:") != NULL;
}

const char *fault_advice(enum transport_fault fault, const char *endpoint, bool is_given)
{
    if (fault != TRANSPORT_FAULT_NOTHING_LISTENS || !is_here(endpoint)) {
        return rules[fault].advice;
    }
    if (strcmp(endpoint, BROKER_LOOPBACK) == 0) {
        return "start treadled there; or one to try things, without keys: treadle dev";
    }
    return is_given ? "check --broker, and that treadled runs there; or start one to try things, "
                      "without keys: treadle dev, with the same --broker"
                    : "start treadled; that of treadle dev is --broker " BROKER_LOOPBACK;
}
