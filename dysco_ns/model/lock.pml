/* SPDX-License-Identifier: Apache-2.0 */
/* The lock handshake of two left anchors that contend for segments of one chain (paper III-B), as core/lock.h and
 * core/release.h carry it out.  Names are those of the code; docs/verification.md says how to read and run it.
 *
 *   HOSTS            agents in the chain, 0 is the leftmost
 *   LEFT1 RIGHT1     anchors of transaction 1; LEFT2 RIGHT2: of transaction 2
 *   LOSSES           so many messages, whichever they are, get lost
 *   CANCELS          so many attempts are given up, at any moment until the new path is used
 *   BROKEN_...       negative controls: the checks must find them
 */
#define LEFT(t)  (t == 1 -> LEFT1 : LEFT2)
#define RIGHT(t) (t == 1 -> RIGHT1 : RIGHT2)
#define OTHER(t) (3 - t)
#define OVERLAP  ((LEFT1 > LEFT2 -> LEFT1 : LEFT2) < (RIGHT1 < RIGHT2 -> RIGHT1 : RIGHT2))
#define DEPTH    6

mtype = { requestLock, ackLock, nackLock, release, ackRelease, cancel, ackCancel };
mtype = { unlocked, lockPending, locked };
mtype = { idle, asking, won, lost, over, cancelled };

typedef Agent {
	mtype lock;     /* of the subsession to its right */
	byte txid;      /* who has it, or had it last */
	byte held;      /* the request that waits, 0: none */
	byte record;    /* the reconfiguration whose right anchor this agent is, 0: none */
	byte done       /* the last one that was completed here */
};

Agent agent[4];
mtype outcome[3];       /* by transaction, at its left anchor */
byte losses = LOSSES, cancels = CANCELS;
bool cancelling[3];     /* by transaction: its left anchor no longer wants what still comes */
byte repeats[3];        /* by transaction: so many of its messages have got lost and are worth a repetition */
bool released[3];
chan rightward[4] = [DEPTH] of { mtype, byte };     /* [i]: what has left agent i to the right */
chan leftward[4] = [DEPTH] of { mtype, byte };      /* [i]: what has left agent i to the left */

#define active(t)  (outcome[t] == asking || outcome[t] == won)
#define decided(t) (outcome[t] == won || ended(t))
#define succeeded(t) ((outcome[t] == won && !cancelling[t]) || outcome[t] == over)
#define ended(t)   (outcome[t] == lost || outcome[t] == over || outcome[t] == cancelled)
#define UNDISTURBED (cancels == CANCELS)
/* A record that waits for an anchor which has gone: until its lease has run out. */
#define unsettled(i, t) (agent[i].record && agent[i].record != t)

#define CLEAN(i) (agent[i].lock == unlocked && !agent[i].record && !agent[i].held && !len(rightward[i]) && !len(leftward[i]))

inline send(channel, message, t)
{
	assert(nfull(channel));
	if
	:: channel!message(t)
	:: losses > 0 -> losses--; repeats[t]++
	fi
}

/* A request that has waited is refused when the one before it is answered, either way. */
inline held_refuse(i)
{
	if
#ifdef BROKEN_HOLD
	:: agent[i].held -> agent[i].held = 0
#endif
	:: agent[i].held ->
		send(leftward[i], nackLock, agent[i].held);
		agent[i].held = 0
	:: else
	fi
}

inline lock_at_right_anchor(i, t)
{
	if
	:: agent[i].record == t -> send(leftward[i], ackLock, t)
	:: agent[i].record != t && (agent[i].record || agent[i].done == t) -> send(leftward[i], nackLock, t)
	:: else ->
		agent[i].record = t;
		send(leftward[i], ackLock, t)
	fi
}

#ifdef BROKEN_LOCK
#define may_take(i, t) true
#else
#define may_take(i, t) (agent[i].lock == unlocked || agent[i].txid == t)
#endif

inline lock_requested(i, t)
{
	if
	:: RIGHT(t) == i -> lock_at_right_anchor(i, t)
	:: RIGHT(t) != i && may_take(i, t) && unsettled(i, t) -> send(leftward[i], nackLock, t)
	:: RIGHT(t) != i && may_take(i, t) && !unsettled(i, t) ->
		agent[i].held = (agent[i].held == t -> 0 : agent[i].held);
		agent[i].lock = (agent[i].lock == unlocked -> lockPending : agent[i].lock);
		agent[i].txid = t;
		send(rightward[i], requestLock, t)
	:: RIGHT(t) != i && !may_take(i, t) && agent[i].lock == lockPending && (!agent[i].held || agent[i].held == t) ->
		agent[i].held = t
	:: RIGHT(t) != i && !may_take(i, t) && (agent[i].lock != lockPending || (agent[i].held && agent[i].held != t)) ->
		send(leftward[i], nackLock, t)
	fi
}

#ifdef BROKEN_CANCEL    /* an ackLock that comes too late is good enough */
#define GIVEN_UP(t) false
#define can_undo(t) (outcome[t] == asking)
#else
#define GIVEN_UP(t) cancelling[t]
#define can_undo(t) true
#endif

inline lock_answered(i, message, t)
{
	if
	:: LEFT(t) == i && outcome[t] == asking && !(GIVEN_UP(t) && message == ackLock) ->
		if
		:: message == ackLock ->
			agent[i].lock = locked;
			outcome[t] = won
		:: else ->
			agent[i].lock = unlocked;
			outcome[t] = lost
		fi;
		held_refuse(i)
	:: LEFT(t) != i && agent[i].lock != unlocked && agent[i].txid == t ->
		if
		:: message == ackLock -> agent[i].lock = locked
		:: else -> agent[i].lock = unlocked
		fi;
#ifdef BROKEN_NACK
		if
		:: message == ackLock -> send(leftward[i], message, t)
		:: else
		fi;
#else
		send(leftward[i], message, t);
#endif
		held_refuse(i)
	:: else /* stale */
	fi
}

inline release_arrived(i, t)
{
	if
	:: RIGHT(t) == i && (agent[i].record == t || agent[i].done == t) ->
		agent[i].record = (agent[i].record == t -> 0 : agent[i].record);
		agent[i].done = t;
		send(leftward[i], ackRelease, t)
	:: RIGHT(t) != i && agent[i].txid == t -> send(rightward[i], release, t)
	:: else /* stale */
	fi
}

inline release_answered(i, t)
{
	if
	:: LEFT(t) == i && outcome[t] == won ->
		agent[i].lock = unlocked;
		outcome[t] = over
	:: LEFT(t) != i && agent[i].txid == t ->
		agent[i].lock = unlocked;
		send(leftward[i], ackRelease, t)
	:: else /* stale */
	fi
}

/* The left anchor gives up; nothing that it is still granted counts. */
inline attempt_cancel(i, t)
{
	cancels--;
	cancelling[t] = true;
	send(rightward[i], cancel, t)
}

inline attempt_undo(i, t)
{
	agent[i].lock = unlocked;
	outcome[t] = cancelled;
	held_refuse(i)
}

inline cancel_arrived(i, t)
{
	if
	:: RIGHT(t) == i ->
		agent[i].record = (agent[i].record == t -> 0 : agent[i].record);
		send(leftward[i], ackCancel, t)
	:: RIGHT(t) != i && agent[i].txid == t -> send(rightward[i], cancel, t)
	:: else /* stale */
	fi
}

inline cancel_answered(i, t)
{
	if
	:: LEFT(t) == i && active(t) && cancelling[t] && can_undo(t) -> attempt_undo(i, t)
	:: LEFT(t) != i && agent[i].lock != unlocked && agent[i].txid == t ->
		agent[i].lock = unlocked;
		send(leftward[i], ackCancel, t);
		held_refuse(i)
	:: else /* stale */
	fi
}

/* The left anchor begins: it takes its own lock, or is refused at once. */
inline begin(i, t)
{
	if
	:: agent[i].lock == unlocked ->
		agent[i].lock = lockPending;
		agent[i].txid = t;
		outcome[t] = asking;
		send(rightward[i], requestLock, t)
	:: else -> outcome[t] = lost
	fi
}

/* One guard for each message of each transaction: the network may deliver them in any order. */
#define FROM_LEFT(message, t)  i > 0 && rightward[i - 1]??[message, t] -> rightward[i - 1]??message, t
#define FROM_RIGHT(message, t) i < HOSTS - 1 && leftward[i + 1]??[message, t] -> leftward[i + 1]??message, t

/* What a daemon does when nothing has come for a while: repeats, and leases of anchors that have gone run out.  It
 * repeats no more often than messages get lost, or a request that nobody answers would look alive for ever. */
#define QUIET timeout
#define MAY_CANCEL(t) cancels > 0 && active(t) && !released[t] && !cancelling[t]
#define AGAIN(t) timeout && repeats[t] > 0

proctype host(byte i)
{
end:
	do
	:: atomic { FROM_LEFT(requestLock, 1); lock_requested(i, 1) }
	:: atomic { FROM_LEFT(requestLock, 2); lock_requested(i, 2) }
	:: atomic { FROM_RIGHT(ackLock, 1); lock_answered(i, ackLock, 1) }
	:: atomic { FROM_RIGHT(ackLock, 2); lock_answered(i, ackLock, 2) }
	:: atomic { FROM_RIGHT(nackLock, 1); lock_answered(i, nackLock, 1) }
	:: atomic { FROM_RIGHT(nackLock, 2); lock_answered(i, nackLock, 2) }
	:: atomic { FROM_LEFT(release, 1); release_arrived(i, 1) }
	:: atomic { FROM_LEFT(release, 2); release_arrived(i, 2) }
	:: atomic { FROM_RIGHT(ackRelease, 1); release_answered(i, 1) }
	:: atomic { FROM_RIGHT(ackRelease, 2); release_answered(i, 2) }
#if CANCELS
	:: atomic { FROM_LEFT(cancel, 1); cancel_arrived(i, 1) }
	:: atomic { FROM_LEFT(cancel, 2); cancel_arrived(i, 2) }
	:: atomic { FROM_RIGHT(ackCancel, 1); cancel_answered(i, 1) }
	:: atomic { FROM_RIGHT(ackCancel, 2); cancel_answered(i, 2) }
	:: atomic { MAY_CANCEL(1) && LEFT1 == i -> attempt_cancel(i, 1) }
	:: atomic { MAY_CANCEL(2) && LEFT2 == i -> attempt_cancel(i, 2) }
	/* the daemon waits no longer for an answer */
	:: atomic { QUIET && LEFT1 == i && active(1) && cancelling[1] && can_undo(1) -> attempt_undo(i, 1) }
	:: atomic { QUIET && LEFT2 == i && active(2) && cancelling[2] && can_undo(2) -> attempt_undo(i, 2) }
#endif
	:: atomic { LEFT1 == i && outcome[1] == idle -> begin(i, 1) }
	:: atomic { LEFT2 == i && outcome[2] == idle -> begin(i, 2) }
	/* the winner has work to do until the other has been told */
	:: atomic { LEFT1 == i && outcome[1] == won && !GIVEN_UP(1) && decided(2) && !released[1] -> released[1] = true; send(rightward[i], release, 1) }
	:: atomic { LEFT2 == i && outcome[2] == won && !GIVEN_UP(2) && decided(1) && !released[2] -> released[2] = true; send(rightward[i], release, 2) }
	:: atomic { AGAIN(1) && LEFT1 == i && outcome[1] == asking && !cancelling[1] -> repeats[1]--; send(rightward[i], requestLock, 1) }
	:: atomic { AGAIN(2) && LEFT2 == i && outcome[2] == asking && !cancelling[2] -> repeats[2]--; send(rightward[i], requestLock, 2) }
	:: atomic { AGAIN(1) && LEFT1 == i && released[1] && outcome[1] == won -> repeats[1]--; send(rightward[i], release, 1) }
	:: atomic { AGAIN(2) && LEFT2 == i && released[2] && outcome[2] == won -> repeats[2]--; send(rightward[i], release, 2) }
	:: atomic { QUIET && agent[i].lock != unlocked && !active(agent[i].txid) ->
		agent[i].lock = unlocked;
		repeats[agent[i].held]++ }      /* who waits will ask again */
	:: atomic { QUIET && agent[i].record && !active(agent[i].record) -> agent[i].record = 0 }
	od
}

/* Of contending left anchors exactly one wins; those whose segments do not overlap do not disturb each other.  And in the
 * end, which must be reached, nothing is left. */
active proctype judge()
{
	atomic {
		decided(1) && decided(2) ->
		assert(!(OVERLAP && succeeded(1) && succeeded(2)));
		assert(!UNDISTURBED || OVERLAP || (succeeded(1) && succeeded(2)));
		assert(!UNDISTURBED || succeeded(1) || succeeded(2))
	}
	ended(1) && ended(2) && CLEAN(0) && CLEAN(1) && CLEAN(2) && CLEAN(3)
}

init {
	byte i;

	atomic {
		outcome[1] = idle;
		outcome[2] = idle;
		do
		:: i < 4 -> agent[i].lock = unlocked; i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < HOSTS -> run host(i); i++
		:: else -> break
		od
	}
}
