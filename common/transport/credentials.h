/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Which keys a client or worker connects with. A broker is asked for its key where a server key is
 * known and the endpoint is tcp://; everything else is plain. One thread.
 */
#ifndef TREADLE_CREDENTIALS_H
#define TREADLE_CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>

#include <treadle/status.h>

#include "common/keys/keys.h"
#include "common/transport/transport.h"

/* Ends with credentials_close(); all zero: plain. */
struct credentials {
    struct key_pair *identity;
    bool is_encrypted; /* with these; else the connection is plain */
    uint8_t server_public[KEY_SIZE];
    struct peer_keys keys;
};

/* Where they come from. */
struct credentials_source {
    const char *endpoint;
    const char *identity; /* file; NULL: TREADLE_IDENTITY, else ~/.config/treadle/identity.key */
    const char
        *server_key; /* file, 64 hexadecimal digits, or `none`: plain. NULL:
                        TREADLE_SERVER_KEY, else ~/.config/treadle/server.pub if it is there */
};

/* Reads them. An identity that was named is read whatever the endpoint, so that a file that must
 * not be trusted is never passed over. TREADLE_E_KEY: a file is refused, there is a server key and
 * no identity, or none is known for a tcp:// endpoint that is not on the loopback;
 * TREADLE_E_NOMEM; `why` says more. */
enum treadle_status credentials_open(struct credentials *credentials,
                                     const struct credentials_source *source,
                                     char why[KEY_WHY_SIZE]);

/* Wipes them; fine to call twice. */
void credentials_close(struct credentials *credentials);

/* For peer_transport_open(); NULL: plain. Valid until the end of the credentials, which must not
 * move. */
const struct peer_keys *credentials_keys(struct credentials *credentials);

#endif
