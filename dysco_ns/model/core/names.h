/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that C and Promela share: read by the preprocessor of both. */

/* What the agents have told about an attempt in one step: bits, of enum event_kind. */
#define TOLD_REFUSED    1
#define TOLD_SYN        2
#define TOLD_READY      4
#define TOLD_DRAINED    8
#define TOLD_GONE       16
#define TOLD_CANCELLED  32
#define TOLD_GONE_RIGHT 64      /* at the right anchor */

/* What a daemon asks of the core: enum command_kind. */
#define ASK_RECONFIGURE  0
#define ASK_REPEAT       1
#define ASK_RELEASE      2
#define ASK_CANCEL       3
#define ASK_FORGET_LEFT  4      /* the right anchor's record, which is about its left side */
#define ASK_FORGET_RIGHT 5
#define ASK_MOVE         6
#define ASK_KINDS        7
#define IS_BUSY          7      /* enum refusal: there is something to be learnt still */

/* What a stack sends. */
#define SENDS_SYN   0
#define SENDS_ACK   1
#define SENDS_BYTE  2
#define SENDS_TWO   3
#define SENDS_AGAIN 4
#define CLOSED      5           /* it has nothing to send or to hear any more */

#define FLIGHT 12               /* most messages under way */
