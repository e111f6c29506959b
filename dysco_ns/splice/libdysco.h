/* SPDX-License-Identifier: Apache-2.0 */
/* libdysco: how a middlebox takes part in Dysco (paper IV-A).  docs/libdysco.md explains and shows examples. */
#ifndef LIBDYSCO_H
#define LIBDYSCO_H

#ifdef __cplusplus
extern "C" {
#endif

#define DYSCO_ABI_VERSION 1

/* The ABI version of the library that is loaded. */
int dysco_abi_version(void);

/* Joins the two TCP sessions of a proxy and asks for the proxy's removal.
 *
 * fd_in is the accepted socket, fd_out the connected one.  `delta`: bytes that the proxy has added to (positive) or
 * removed from (negative) what it read from fd_in before writing it to fd_out; the other direction is unchanged.
 * The proxy goes on relaying, unchanged in size, until both sockets report end of file, and then closes them.
 *
 * Returns 0, or -1 with errno:
 *   EBADF, ENOTSOCK, ENOTCONN, EAFNOSUPPORT   a descriptor is not a connected IPv4 TCP socket
 *   ENOENT      no agent in this network namespace
 *   ECONNRESET  the agent went away, ETIMEDOUT it did not answer in time
 *   EPERM       the agent refused: dysco_error() says why
 *   EALREADY    the sessions are joined, but the removal was refused: it may come later, the promise holds */
int dysco_splice(int fd_in, int fd_out, int delta);

/* The same for proxies that change the size of both directions. */
int dysco_splice2(int fd_a, int fd_b, int delta_ab, int delta_ba);

#define DYSCO_JOIN_ONLY 1u /* join the sessions, do not ask for the removal: somebody else will */
int dysco_splice_flags(int fd_a, int fd_b, int delta_ab, int delta_ba, unsigned flags);

/* Chooses the middleboxes of a session before it is opened: a proxy that classifies what it has accepted, for example.
 *
 * fd is a TCP socket that is not connected yet; it is bound here if it is not bound.  `middleboxes`: their IPv4
 * addresses, at most 8, in the order in which the session passes them; it replaces what policies say.  Call connect()
 * to the same destination within 3 s.
 *
 * Returns 0, or -1 with errno as above, and EINVAL (more than 8), EISCONN (connected already), ENETUNREACH. */
struct sockaddr_in;
struct in_addr;
int dysco_next(int fd, const struct sockaddr_in *destination, const struct in_addr *middleboxes, int count);

/* The reason of this thread's last failure, one line. */
const char *dysco_error(void);

#ifdef __cplusplus
}
#endif
#endif
