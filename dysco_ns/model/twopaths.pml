/* SPDX-License-Identifier: Apache-2.0 */
/* The data part of a reconfiguration (paper III-C to III-F), as the core carries it out: a session between two end hosts,
 * an anchor on each, goes from an old path to a new one while both send.  docs/verification.md says how to read and run it.
 *
 *   endhost.pml      TCP, and what the end hosts rely on
 *   anchor.pml       which path, which numbers: core/twopaths.h, timestamps.h, anchor.h
 *   network.pml      wires and middleboxes, and what middleboxes rely on
 *   here             handshake, release and the end: core/newpath.h, release.h
 *
 *   BYTES_LEFT, BYTES_RIGHT  what the left and the right host send before their FINs
 *   OLD_BOXES, NEW_BOXES     middleboxes on the paths
 *   DELTA, DELTA_BACK        what the old path's first middlebox adds to the numbers of the streams to and from the right
 *   SEGMENT                  most new bytes in a segment
 *   LOSSES                   so many messages, whichever they are, get lost
 *   SPURIOUS                 so many are sent again without need
 *   EARLY                    so many releases are sent before they are due
 *   RECONFIGS                one after the other, back and forth
 *   CAPACITY                 of a wire; hosts wait when it is full but for one place
 *   BROKEN_...               negative controls: the checks must find them
 */
#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define MIN(a, b) ((a) < (b) -> (a) : (b))

/* enum phase; PHASE_DONE is a record dropped */
#define NONE      0
#define LOCKING   1
#define HANDSHAKE 2
#define READY     3
#define SETTLING  4

/* When all is quiet, what has got lost or has been dropped is sent again, but not for ever: what takes more is found as a
 * state in which nothing can happen. */
#define REPEATS   3
#define RELEASES  5

#include "endhost.pml"
#include "network.pml"
#include "anchor.pml"

mtype = { requestLock, ackLock, release, ackRelease };
/* The control session; one message is under way at a time.  requestLock, ackLock: what the old path adds to sequence
 * numbers, to timestamps.  release: beta; then whether it is known, whether the other's is, drained, over. */
chan control[2] = [1] of { mtype, short, short, bool, bool, bool, bool };
hidden short delta, clock;
hidden byte m_beta, m_beta_known, m_drained, m_over;

byte done;              /* reconfigurations completed at the right anchor */
byte spurious = SPURIOUS, early, releases;

#define CONTROL_IDLE (empty(control[0]) && empty(control[1]))

/* ---- records and the new path's handshake: core/lock.h, command.h, newpath.h ---- */

inline record_begin(i)
{
	r[i].phase = LOCKING;
	r[i].ts_delivered = host[i].ts_recent;
	r[i].ts_old_seen = host[i].ts_recent;
	r[i].old_rcvd = host[i].rcv_nxt;
	do      /* the highest number that has come, gap or not */
	:: host[i].got >> (r[i].old_rcvd - OFFSET(i)) -> r[i].old_rcvd++
	:: else -> break
	od;
	r[i].old_rcvd_acked = host[i].ack_sent;
	r[i].old_sent_acked = host[i].snd_una;
	r[i].expected = host[i].ack_sent;
	r[i].ack_delivered = host[i].snd_una
}

/* What is nought again cannot tell two states apart. */
inline record_drop(i)
{
	repeats = MAX(repeats, REPEATS);
	r[i].phase = NONE;
	r[i].syn_ack = false;
	r[i].cutoff = false;
	r[i].first_new = false;
	r[i].beta_in_known = false;
	r[i].beta_out_known = false;
	r[i].peer_cutoff_known = false;
	r[i].drained = false;
	r[i].echoed = false;
	r[i].caught_up = false;
	r[i].peer_delta = 0;
	r[i].ts_offset = 0;
	r[i].isn_out = 0;
	r[i].isn_in = 0;
	r[i].old_sent = 0;
	r[i].old_sent_acked = 0;
	r[i].old_rcvd = 0;
	r[i].old_rcvd_acked = 0;
	r[i].first_new_rcvd = 0;
	r[i].peer_cutoff = 0;
	r[i].beta_out = 0;
	r[i].beta_in = 0;
	r[i].ts_out0 = 0;
	r[i].ts_in0 = 0;
	r[i].ts_held = 0;
	r[i].ts_delivered = 0;
	r[i].ts_old_seen = 0;
	r[i].ack_delivered = 0;
	r[i].expected = 0
}

#define PATH_ADDS(n) (begun == 1 -> n : 0)      /* the middlebox with a delta has left after the first */

inline new_path_offer(i)
{
	r[i].isn_out = host[i].snd_nxt - 1;
	r[i].ts_out0 = host[i].ts_sent;
	r[i].ts_held = host[i].ts_sent;
	r[i].phase = HANDSHAKE
}

inline new_path_accept()
{
	if
	:: r[1].phase == LOCKING ->
		r[1].isn_in = s_seq;
		r[1].ts_in0 = s_tsval;
		new_path_offer(1)
	:: else
	fi;
	if
	:: r[1].phase == HANDSHAKE || r[1].phase == READY ->
		put(1, NEW(1), SYN_ACK, r[1].isn_out, 0, r[1].isn_in + 1, r[1].ts_out0, r[1].ts_in0, 0);
		put(1, NEW(1), segment, r[1].isn_out + 1, 0, r[1].isn_in + 1, r[1].ts_out0, r[1].ts_in0, 0)
	:: else
	fi
}

inline new_path_confirm()
{
	if
	:: r[0].phase == HANDSHAKE && !r[0].syn_ack ->
		r[0].isn_in = s_seq;
		r[0].ts_in0 = s_tsval;
		r[0].syn_ack = true
	:: else
	fi;
	put(0, NEW(0), segment, r[0].isn_out + 1, 0, r[0].isn_in + 1, r[0].ts_out0, r[0].ts_in0, 0)
}

inline new_path_syn()
{
	put(0, NEW(0), SYN, r[0].isn_out, 0, 0, r[0].ts_out0, 0, 0)
}

/* ---- the end of the old path: core/release.h ---- */

inline old_path_end(i)
{
	objected(host[i].snd_una < r[i].old_sent);      /* the host does not know that nothing is left there */
	r[i].phase = SETTLING;
	settle(i, false)
}

inline release_learn(i)
{
	r[i].beta_in = (m_beta && !r[i].beta_in_known -> delta : r[i].beta_in);
	r[i].beta_in_known = r[i].beta_in_known || m_beta;
	r[i].peer_cutoff = (m_beta && !r[i].peer_cutoff_known -> new_start(i) : r[i].peer_cutoff);
	r[i].peer_cutoff_known = r[i].peer_cutoff_known || m_beta;
	r[i].beta_out_known = r[i].beta_out_known || m_beta_known
}

inline release_update(i)
{
	if
	:: r[i].phase == READY ->
		cutoff_fix(i, host[i].snd_nxt);
		drained_check(i)
	:: else
	fi
}

inline send_release()
{
	release_update(0);
	control[0]!release(r[0].beta_out, 0, true, r[0].beta_in_known, r[0].drained, false)
}

#ifdef BROKEN_HANDSHAKE         /* the left anchor's ACK may have got lost, and nobody repeats it */
#define RELEASABLE READY
#else                           /* who sends a release is ready */
#define RELEASABLE HANDSHAKE
#endif

inline release_at_right_anchor()
{
	if
	:: done == begun -> control[1]!ackRelease(0, 0, false, true, true, true)
	:: done < begun && r[1].phase >= RELEASABLE ->
		r[1].phase = READY;
		release_learn(1);
		release_update(1);
		m_over = r[1].drained && m_drained && m_beta_known;
		control[1]!ackRelease(r[1].beta_out, 0, r[1].cutoff, r[1].beta_in_known, r[1].drained, m_over);
		if
		:: m_over ->
			done = begun;
			old_path_end(1)
		:: else
		fi
	:: else /* too early: dropped */
	fi
}

inline release_answered()
{
	if
	:: r[0].phase == READY ->
		release_learn(0);
		release_update(0);
		if
		:: m_over -> old_path_end(0)
		:: else
		fi
	:: else /* stale */
	fi
}

/* ---- control messages ---- */

inline lock_at_right_anchor()
{
	if
	:: r[1].phase == NONE ->
		record_begin(1);
		r[1].peer_delta = delta - to[1].ack_delta;
		r[1].ts_offset = clock - to[1].tsecr_delta
	:: else
	fi;
	control[1]!ackLock(to[1].seq_delta + PATH_ADDS(DELTA_BACK), to[1].tsval_delta, false, false, false, false)
}

inline lock_answered()
{
	if
	:: r[0].phase == LOCKING ->
		r[0].peer_delta = delta - to[0].ack_delta;
		r[0].ts_offset = clock - to[0].tsecr_delta;
		new_path_offer(0);
		new_path_syn()
	:: else /* stale */
	fi
}

inline request_lock()
{
	control[0]!requestLock(to[0].seq_delta + PATH_ADDS(DELTA), to[0].tsval_delta, false, false, false, false)
}

/* What the daemon repeats when nothing comes. */
inline repeat()
{
	if
	:: r[0].phase == LOCKING -> request_lock()
	:: r[0].phase == HANDSHAKE -> new_path_syn()
	:: else
	fi
}

/* ---- who does what when ---- */

#define ROOM(i) (len(wire[AT(0, i, i)]) < CAPACITY - 1 && len(wire[AT(1, i, i)]) < CAPACITY - 1)
#define CAN_SEND(i) (ROOM(i) && (!all_sent(i) || host[i].ack_due || spurious > 0))
/* A session that is over both ways is not reconfigured; neither is one that has not settled. */
#define SESSION_OVER (all_sent(0) && all_received(0))
#define CAN_BEGIN (begun < RECONFIGS && r[0].phase == NONE && r[1].phase == NONE && done == begun && !SESSION_OVER && \
		   CONTROL_IDLE && SILENT(NEW(0)))
#define WAITING (r[0].phase == LOCKING || r[0].phase == HANDSHAKE)

inline arrives(i, path)
{
	if
	:: kind == segment -> anchor_ingress(i, path)
	:: kind == SYN -> new_path_accept()
	:: kind == SYN_ACK -> new_path_confirm()
	fi
}

proctype side(byte i)
{
end:
	do
	:: atomic {
		CAN_SEND(i) ->
		if
		:: !all_sent(i) -> s_seq = host[i].snd_nxt; s_length = 1
#if SEGMENT > 1
		:: host[i].snd_nxt < LAST(i) -> s_seq = host[i].snd_nxt; s_length = 2
#endif
		:: host[i].ack_due -> s_seq = host[i].snd_nxt; s_length = 0
#if SPURIOUS
		:: spurious > 0 -> spurious--; s_seq = host[i].snd_nxt; s_length = 0
		:: spurious > 0 && !all_acked(i) -> spurious--; s_seq = host[i].snd_una; s_length = 1
		:: spurious > 0 && !all_acked(i) -> spurious--; s_seq = host[i].snd_una; s_length = host[i].snd_nxt - s_seq
#endif
		fi;
		d_step { host_sends(i) }
	   }
	:: d_step {
		timeout && ROOM(i) && repeats > 0 && !all_acked(i) -> repeats--;
		releases = RELEASES;
		s_seq = host[i].snd_una;
		s_length = host[i].snd_nxt - s_seq;
		host_sends(i)
	   }
	:: d_step { nempty(wire[AT(0, 1 - i, i)]) -> GET(AT(0, 1 - i, i)); arrives(i, 0) }
	:: d_step { nempty(wire[AT(1, 1 - i, i)]) -> GET(AT(1, 1 - i, i)); arrives(i, 1) }
	/* by time: nothing that was sent before the old path ended, at either anchor, is under way any more */
	:: d_step { r[i].phase == SETTLING && r[1 - i].phase != READY && SILENT_TO(NEW(i), 1 - i) -> settle(i, true) }
	od
}

#define FROM(way) control[way]?kind, delta, clock, m_beta, m_beta_known, m_drained, m_over

proctype left_anchor()
{
end:
	do
	:: d_step { CAN_BEGIN -> begun++; early = EARLY; releases = RELEASES; record_begin(0); request_lock() }
	:: d_step {
		nempty(control[1]) -> FROM(1);
		if
		:: kind == ackLock -> lock_answered()
		:: kind == ackRelease -> release_answered()
		fi
	   }
	:: d_step { early > 0 && r[0].phase == READY && CONTROL_IDLE -> early--; send_release() }
	:: d_step { timeout && releases > 0 && r[0].phase == READY && CONTROL_IDLE -> releases--; send_release() }
#if SPURIOUS
	:: d_step { spurious > 0 && WAITING && CONTROL_IDLE && ROOM(0) -> spurious--; repeat() }
#endif
#if LOSSES
	:: d_step { timeout && repeats > 0 && WAITING && CONTROL_IDLE -> repeats--; repeat() }
	:: d_step { losses > 0 && nempty(control[0]) -> FROM(0); losses--; repeats = repeats + REPEATS }
	:: d_step { losses > 0 && nempty(control[1]) -> FROM(1); losses--; repeats = repeats + REPEATS }
#endif
	od
}

proctype right_anchor()
{
end:
	do
	:: d_step {
		nempty(control[0]) -> FROM(0);
		if
		:: kind == requestLock -> lock_at_right_anchor()
		:: kind == release -> release_at_right_anchor()
		fi
	   }
	od
}

/* And in the end, which must be reached, everything has come and has been acknowledged, FINs too, and nothing is left. */
active proctype judge()
{
	all_sent(0) && all_sent(1) && all_acked(0) && all_acked(1) && all_received(0) && all_received(1) &&
	r[0].phase == NONE && r[1].phase == NONE && path_of[0] == path_of[1] && CONTROL_IDLE && SILENT(0) && SILENT(1)
}

init {
	byte n;

	atomic {
		host_begin(0);
		host_begin(1);
		do
		:: n < OLD_BOXES -> run middlebox(0, n); n++
		:: else -> break
		od;
		n = 0;
		do
		:: n < NEW_BOXES -> run middlebox(1, n); n++
		:: else -> break
		od;
#if LOSSES
		n = 0;
		do
		:: n < WIRES -> run lossy(n); n++
		:: else -> break
		od;
#endif
		n = 0;
		run side(0);
		run side(1);
		run left_anchor();
		run right_anchor()
	}
}
