/* SPDX-License-Identifier: MPL-2.0 */
/*
 * Canaries: 32 bytes that must not be found where nothing of them belongs. Those of secrets are the
 * secret keys that the tests make; this one stands in bodies and results. No word of it is anybody
 * else's, so any quarter of it that is found somewhere is a part of a body. Bash tests read it here
 * (support.sh), and so does script/canary.
 */
#ifndef TREADLE_SUPPORT_CANARY_H
#define TREADLE_SUPPORT_CANARY_H

#define CANARY_SIZE 32
#define CANARY_BODY "q7Zk2vXw9mTbR4nJc8LhYd3PsGf6KeWu"

/* In the environment of tests that script/canary runs: the folder where they leave everything.
 * What a test would remove, it leaves there then. */
#define CANARY_VARIABLE "TREADLE_TEST_CANARY"

/* In that folder: a line "secret HEX" or "body HEX" for each. */
#define CANARY_LIST "canaries"

#endif
