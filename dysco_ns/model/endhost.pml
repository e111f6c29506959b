/* SPDX-License-Identifier: Apache-2.0 */
/* TCP as an end host speaks it, as far as two paths can disturb it.  A byte is its number in its sender's stream, from 1;
 * the last one is the FIN.  Acknowledgments are cumulative and may be late; what comes early is kept. */

typedef Host {
	byte snd_nxt, snd_una, rcv_nxt;
	byte got;               /* a bit for each byte that has come */
	byte ack_sent;          /* the last acknowledgment sent */
	bool ack_due;
	byte ts_recent, ts_sent /* last timestamp received, sent */
};

Host host[2];

/* the segment in hand: as it was sent or is on the wire, and as it is delivered */
hidden mtype kind;
hidden byte s_seq, s_length, s_ack, s_tsval, s_tsecr, s_byte, d_seq, d_ack, d_tsval, d_tsecr, high;

#define LAST(i)   (i == 0 -> BYTES_LEFT + 1 : BYTES_RIGHT + 1)
#define OFFSET(i) (i == 1 -> DELTA : DELTA_BACK)        /* of the numbers of what arrives here */
#define CLOCK(i)  (2 * host[i].snd_nxt + host[i].rcv_nxt - OFFSET(i))   /* ticks whenever something happens */
#define all_sent(i)     (host[i].snd_nxt > LAST(i))
#define all_acked(i)    (host[i].snd_una == host[i].snd_nxt)
#define all_received(i) (host[i].rcv_nxt == LAST(1 - i) + 1 + OFFSET(i))

inline host_begin(i)
{
	host[i].snd_nxt = 1;
	host[i].snd_una = 1;
	host[i].rcv_nxt = 1 + OFFSET(i);
	host[i].ack_sent = 1 + OFFSET(i);
	host[i].ts_recent = 3;
	host[i].ts_sent = 3
}

/* s_length bytes from s_seq on, new ones or again; none: an acknowledgment. */
inline host_sends(i)
{
	high = host[i].snd_nxt;
	s_byte = s_seq;
	host[i].snd_nxt = MAX(high, s_seq + s_length);
	s_ack = host[i].rcv_nxt;
	s_tsval = CLOCK(i);
	s_tsecr = host[i].ts_recent;
	host[i].ts_sent = s_tsval;
	host[i].ack_sent = s_ack;
	host[i].ack_due = false;
	anchor_egress(i)
}

/* What TCP must drop: by its timestamp (PAWS), and a bare acknowledgment that is behind the window. */
#define must_drop(i) (d_tsval < host[i].ts_recent || (!s_length && d_seq < host[i].ack_sent))
#define bytes ((1 << (s_byte + s_length)) - (1 << s_byte))
#define is_news(i) (d_ack > host[i].snd_una || (bytes & ~host[i].got))

/* TCP lives with news that it must drop, but there is no need for it.  LENIENT: do not object. */
#ifdef LENIENT
#define objected(it) skip
#else
#define objected(it) assert(!(it))
#endif

/* Everything an end host relies on is asserted here. */
inline host_receives(i)
{
	objected(must_drop(i) && is_news(i));
	assert(d_tsecr <= host[i].ts_sent);
	assert(d_ack <= host[1 - i].rcv_nxt - OFFSET(1 - i));   /* nothing is acknowledged that has not come */
	if
	:: must_drop(i) ->
		host[i].ack_due = true;                 /* it is answered */
		s_length = 0
	:: else ->
		host[i].ts_recent = d_tsval;
		host[i].snd_una = MAX(host[i].snd_una, d_ack)
	fi;
	if
	:: s_length ->
		assert(d_seq == s_byte + OFFSET(i));    /* the byte that belongs there, so once and in order */
		host[i].got = host[i].got | bytes;
		do
		:: host[i].got & (1 << (host[i].rcv_nxt - OFFSET(i))) -> host[i].rcv_nxt++
		:: else -> break
		od;
		host[i].ack_due = true
	:: else
	fi
}
