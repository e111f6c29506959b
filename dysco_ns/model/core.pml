/* SPDX-License-Identifier: Apache-2.0 */
/* The shipping core under Spin: the agents are core/ itself, as the host library has it, called through embedded C
 * (core/world.h here).  Spin chooses what happens next: which message arrives or gets lost, when a daemon asks, when an
 * end host sends, when a lease runs out.  docs/verification.md says how to read and run it.
 *
 *   HOSTS            agents in the chain, 0 is the client's, the last one the server's
 *   BESIDE           hosts beside the chain, for new paths
 *   ATTEMPTS         1 or 2, and of each:
 *   LEFT1 RIGHT1     its anchors
 *   THROUGH1         the host that its new path goes through, 0: none
 *   MOVES            with attempt 1 the client (1) or the server (2) goes to another address; 0: nobody
 *   LOSSES           so many messages, whichever they are, get lost
 *   HASTE            so many commands are repeated before they are due
 *   REPEATS          so often is repeated what has not been answered, and again for each loss
 *   CANCELS          so many attempts are given up, at any moment
 *   BYTES_LEFT ...RIGHT, FINS   what the end hosts send
 *   SEEDED_SHARED    a negative control: a second processor of this host works on a copy of its tables, and what happens
 *                    there meanwhile is lost
 */
#include "core/names.h"
c_decl { \#include "world.h" };


#define LEFT(t)     (t == 1 -> LEFT1 : LEFT2)
#define RIGHT(t)    (t == 1 -> RIGHT1 : RIGHT2)
#define THROUGH(t)  (t == 1 -> THROUGH1 : THROUGH2)
#define BETWEEN(t)  (((1 << RIGHT(t)) - 1) & ~((2 << LEFT(t)) - 1))     /* hosts, as bits */
#define BROUGHT(t)  (THROUGH(t) -> 1 << THROUGH(t) : 0)
#define OTHER(t)    (3 - t)
#define OVERLAP     (ATTEMPTS == 2 && (LEFT1 > LEFT2 -> LEFT1 : LEFT2) < (RIGHT1 < RIGHT2 -> RIGHT1 : RIGHT2))
#define LAST        (HOSTS - 1)

mtype = { idle, asking, handshake, ready, done, refused, cancelled };

int host[6];            /* each host, by number: tables of its agent, its stack */
short flight[FLIGHT];   /* messages under way, by number, sorted; 0: none */
byte holds[6];          /* what follows from a host's number: attempts that hold something there, as bits 1 and 2; */
byte may[6];            /* what an end host may send, as bits SENDS_...; whether it has closed */

mtype outcome[3];       /* by attempt, at its left anchor */
bool due[3];            /* all has drained: the daemon is told, and releases at once */
bool cancelling[3];
bool forget_left[3], forget_right[3];   /* a record that is to be settled and dropped by time */
byte repeats[3];        /* by attempt, at 0 the end hosts': so often is it worth while */
bool repeated, surprised;       /* something was asked again; something came that nobody, but who
				 * has given up, waits for any more */
byte losses = LOSSES, haste = HASTE, cancels = CANCELS;
byte chain = (1 << HOSTS) - 1;  /* hosts that the session passes, as bits */

hidden int told, refusal, stale, at;

#define waiting(t)  (outcome[t] == asking || outcome[t] == handshake)
#define granted(t)  (outcome[t] == handshake || outcome[t] == ready)
#define active(t)   (waiting(t) || outcome[t] == ready)
#define ended(t)    (outcome[t] == done || outcome[t] == refused || outcome[t] == cancelled)
#define gives_up(t) (cancelling[t] && active(t))
#define decided(t)  (granted(t) || ended(t))
#define QUIET       (flight[0] == 0)
#define MAY(i, w)   (may[i] >> w & 1)
/* What is repeated when nothing comes is not wasted while an end host owes an acknowledgment. */
#define RESTS       (QUIET && !MAY(0, SENDS_ACK) && !MAY(LAST, SENDS_ACK))

/* The paper's first property, at every moment: overlapping segments are never changed at once. */
#define changes(t)  (granted(t) && !cancelling[t])
#define LOCKS_APART (!OVERLAP || !changes(1) || !changes(2))
/* Nobody is surprised by a message as long as none is lost, repeated, cancelled or refused. */
#define EXPECTED    (!stale || ATTEMPTS == 2 || losses < LOSSES || haste < HASTE || cancels < CANCELS || \
		     repeated)

/* ---- a step of a host, and what follows from it ---- */

#define HEARD(bit)  (told & bit)
#define HAS(t, i)   (holds[i] >> t & 1)

#define hear(t) \
	c_code { told = world_told(t); }; \
	repeats[t] = (told && repeats[t] < REPEATS -> REPEATS : repeats[t]); \
	repeats[0] = (told && repeats[0] < REPEATS -> REPEATS : repeats[0]); \
	if \
	:: HEARD(TOLD_REFUSED) -> assert(outcome[t] == asking && !HAS(t, LEFT(t))); outcome[t] = refused \
	:: HEARD(TOLD_SYN) -> assert(outcome[t] == asking); outcome[t] = handshake \
	:: HEARD(TOLD_CANCELLED) -> assert(waiting(t) && !HAS(t, LEFT(t))); outcome[t] = cancelled \
	:: else \
	fi; \
	if \
	:: HEARD(TOLD_READY) -> assert(outcome[t] == handshake); outcome[t] = ready \
	:: else \
	fi; \
	due[t] = due[t] || HEARD(TOLD_DRAINED); \
	if \
	:: HEARD(TOLD_GONE) -> \
		assert(outcome[t] == ready); \
		outcome[t] = done; \
		chain = (chain & ~BETWEEN(t)) | BROUGHT(t); \
		due[t] = false; \
		forget_left[t] = true \
	:: else \
	fi; \
	forget_right[t] = forget_right[t] || HEARD(TOLD_GONE_RIGHT)

inline heard()
{
	c_code {
		told = world_wrong() != 0;
		stale = world_stale();
		at = world_where();
		world_look(now.host, now.holds, now.may);
	};
	assert(!told);          /* what is wrong is in the output */
	assert(EXPECTED);
	surprised = surprised || (stale && !(gives_up(1) && at == LEFT1) && !(gives_up(2) && at == LEFT2));
	hear(1);
	hear(2);
	assert(LOCKS_APART)
}

#define arrives(k)  c_code { world_arrives(now.host, now.flight, k); }; heard()
#define ask(t, w)   c_code { refusal = world_asks(now.host, now.flight, t, w); }; heard()
#define sends(i, w) c_code { world_sends(now.host, now.flight, i, w); }; heard()
#define lost(k)     c_code { world_lost(now.flight, k); }; losses--; again(0); again(1); again(2)
#define again(t)    repeats[t] = (repeats[t] < REPEATS -> REPEATS : repeats[t])

/* ---- the network: messages come in any order ---- */

#define UNDER_WAY(k) flight[k] && (k == 0 || flight[k] != flight[k - (k > 0)])  /* of two alike one is enough */
#define ARRIVES(k)   d_step { UNDER_WAY(k) -> arrives(k) }
#define IS_LOST(k)   d_step { losses && UNDER_WAY(k) -> lost(k) }

proctype network()
{
end:
	do
	:: ARRIVES(0) :: ARRIVES(1) :: ARRIVES(2) :: ARRIVES(3) :: ARRIVES(4) :: ARRIVES(5)
	:: ARRIVES(6) :: ARRIVES(7) :: ARRIVES(8) :: ARRIVES(9) :: ARRIVES(10) :: ARRIVES(11)
#if LOSSES
	:: IS_LOST(0) :: IS_LOST(1) :: IS_LOST(2) :: IS_LOST(3) :: IS_LOST(4) :: IS_LOST(5)
	:: IS_LOST(6) :: IS_LOST(7) :: IS_LOST(8) :: IS_LOST(9) :: IS_LOST(10) :: IS_LOST(11)
#endif
	od
}

#ifdef SEEDED_SHARED
int copy;

proctype second_processor()
{
end:
	do
	:: d_step { !copy && !QUIET -> copy = host[SEEDED_SHARED] }
	:: d_step { copy && UNDER_WAY(0) -> host[SEEDED_SHARED] = copy; copy = 0; arrives(0) }
	od
}
#endif

/* ---- the daemons: agent/leader.py, without its clock ---- */

#define refused_at_once(t) \
	if \
	:: refusal -> outcome[t] = refused \
	:: else \
	fi

/* The record settles, then it goes. */
#define forgets(t, side, flag) \
	ask(t, side); \
	if \
	:: !refusal -> ask(t, side); flag = false \
	:: refusal && refusal != IS_BUSY -> flag = false \
	:: else \
	fi

/* An end host gives its session another address before it, or its left neighbour, asks for a new path. */
#if MOVES
#define move(t)    ask(t, ASK_MOVE)
#else
#define move(t)    skip
#endif

/* Who has won has work to do until the other has been told. */
#define MAY_RELEASE(t) (outcome[t] == ready && (!OVERLAP || decided(OTHER(t))))

#define BEGINS(t)  d_step { outcome[t] == idle -> outcome[t] = asking; move(t); ask(t, ASK_RECONFIGURE); refused_at_once(t) }
/* What is not lost, and overtakes nothing, is answered without being sent again, and leaves no lock to a lease. */
#define MISHAP      (losses < LOSSES || surprised)
#define MAY_REPEAT(t) (outcome[t] == handshake || (outcome[t] == asking && MISHAP))
#define REPEATS_(t) d_step { RESTS && repeats[t] && MAY_REPEAT(t) && !cancelling[t] -> repeats[t]--; repeated = true; ask(t, ASK_REPEAT) }
#define HASTENS(t) d_step { haste && waiting(t) && !cancelling[t] -> haste--; ask(t, ASK_REPEAT) }
#define DRAINED(t) d_step { MAY_RELEASE(t) && due[t] -> due[t] = false; ask(t, ASK_RELEASE) }
#define RELEASES(t) d_step { MAY_RELEASE(t) && RESTS && repeats[t] -> repeats[t]--; repeated = true; ask(t, ASK_RELEASE) }
#define CANCELS_(t) d_step { cancels && waiting(t) -> cancels--; ask(t, ASK_CANCEL); cancelling[t] = active(t) && !refusal }
#define GIVES_UP(t) d_step { QUIET && gives_up(t) -> ask(t, ASK_FORGET_RIGHT) }
/* by time: nothing that was sent before the old path ended is under way any more */
#define FORGETS_LEFT(t)  d_step { QUIET && forget_left[t] -> forgets(t, ASK_FORGET_RIGHT, forget_left[t]) }
#define FORGETS_RIGHT(t) d_step { QUIET && forget_right[t] -> forgets(t, ASK_FORGET_LEFT, forget_right[t]) }

#define DAEMON(t) \
	:: BEGINS(t) :: REPEATS_(t) :: HASTENS(t) :: DRAINED(t) :: RELEASES(t) :: CANCELS_(t) :: GIVES_UP(t) \
	:: FORGETS_LEFT(t) :: FORGETS_RIGHT(t)

proctype daemons()
{
end:
	do
	DAEMON(1)
#if ATTEMPTS == 2
	DAEMON(2)
#endif
	od
}

/* A lease runs out when its anchor has given up; no other clock matters. */
#define ABANDONED(i) (holds[i] && (!HAS(1, i) || !active(1)) && (!HAS(2, i) || !active(2)))
#define LEASE(i)     d_step { i < HOSTS && MISHAP && QUIET && ABANDONED(i) -> c_code { world_ages(now.host, i); }; heard(); again(1); again(2) }

proctype leases()
{
end:
	do
	:: LEASE(0) :: LEASE(1) :: LEASE(2) :: LEASE(3) :: LEASE(4) :: LEASE(5)
	od
}

/* ---- the end hosts ---- */

#define STACK(i) \
	:: d_step { MAY(i, SENDS_BYTE) -> sends(i, SENDS_BYTE) } \
	:: d_step { MAY(i, SENDS_ACK) -> sends(i, SENDS_ACK) } \
	:: d_step { RESTS && repeats[0] && MAY(i, SENDS_AGAIN) -> repeats[0]--; sends(i, SENDS_AGAIN) }

proctype stacks()
{
end:
	do
	STACK(0)
	STACK(LAST)
	od
}

/* ---- beginning and end ---- */

#define EXCUSED      (cancels < CANCELS || FINS)     /* a session that is over is not reconfigured */
#define UNDONE       (1 << SENDS_ACK | 1 << SENDS_BYTE | 1 << SENDS_AGAIN)
#define ALL_ENDED (ended(1) && ended(2))
#define NOTHING_LEFT (QUIET && !forget_left[1] && !forget_left[2] && !forget_right[1] && !forget_right[2] && \
		      !(holds[0] | holds[1] | holds[2] | holds[3] | holds[4] | holds[5]) && \
		      !((may[0] | may[LAST]) & UNDONE) && (!FINS || (MAY(0, CLOSED) && MAY(LAST, CLOSED))))

/* The end must be reached.  Of contending anchors one has won; a byte each way goes by the chain that there is now, the
 * session ends, and no table has an entry. */
proctype judge()
{
	d_step {
		ALL_ENDED && NOTHING_LEFT ->
		assert(!OVERLAP || outcome[1] != done || outcome[2] != done);
		assert(EXCUSED || outcome[1] == done || outcome[2] == done);
		assert(EXCUSED || OVERLAP || (outcome[1] == done && (ATTEMPTS == 1 || outcome[2] == done)));
		told = MOVES && outcome[1] == done;
		c_code { told = world_end(now.host, now.chain, told) != 0; };
		assert(!told)
	}
}

init {
	d_step {
		c_code {
			world_new(HOSTS, BESIDE, BYTES_LEFT, BYTES_RIGHT, FINS);
			world_moves(MOVES);
			world_attempt(1, LEFT1, RIGHT1, THROUGH1);
			world_attempt(2, LEFT2, RIGHT2, THROUGH2);
			world_open(now.host);
			world_look(now.host, now.holds, now.may);
		};
		outcome[1] = idle;
		outcome[2] = (ATTEMPTS == 2 -> idle : refused);
		repeats[0] = REPEATS;
		repeats[1] = REPEATS;
		repeats[2] = REPEATS
	}
	atomic {
		run network();
		run daemons();
		run leases();
		run stacks();
		run judge();
#ifdef SEEDED_SHARED
		run second_processor()
#endif
	}
}
