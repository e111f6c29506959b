# SPDX-License-Identifier: Apache-2.0
"""`dysco`: agents, policies, sessions, reconfigurations, events.

--at HOST finds a host of the running lab by its name; without it the agent of this network namespace is asked.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dysco_ns import netns
from dysco_ns.agent.changes import RETRIES, RETRY_PAUSE_S
from dysco_ns.agent.client import AgentClient, AgentRefused, NoAgent
from dysco_ns.policy.chains import BadChange, Change
from dysco_ns.policy.directory import Directory, UnknownHost
from dysco_ns.policy.orders import Orders

app = typer.Typer(
    help="Dysco: service chains for TCP sessions that can change while the sessions run.",
    no_args_is_help=True,
    add_completion=False,
)
agent = typer.Typer(help="The agent of a network namespace.", no_args_is_help=True)
policy = typer.Typer(
    help="Which sessions get which chain.  Limits: 64 policies an agent, 8 middleboxes a chain, 64 filter instructions.",
    no_args_is_help=True,
)
key = typer.Typer(
    help="Rotation: make a new key valid at every agent, then use it at every agent, then drop the old one.",
    no_args_is_help=True,
)
type_ = typer.Typer(help="Names for several middleboxes that do the same: a session gets one of them.", no_args_is_help=True)
app.add_typer(type_, name="type")
app.add_typer(agent, name="agent")
app.add_typer(key, name="key")
app.add_typer(policy, name="policy")
At = Annotated[Optional[str], typer.Option("--at", help="host of the running lab; default: this namespace")]
Json = Annotated[bool, typer.Option("--json", help="for machines")]


def fail(message: str, status: int = 1) -> NoReturn:
    print(f"dysco: {message}", file=sys.stderr)
    raise SystemExit(status)


def client(at: str | None) -> AgentClient:
    try:
        return Directory().client(at)
    except UnknownHost as error:
        fail(str(error), 2)


@agent.command("run")
def agent_run(
    path: Annotated[Optional[Path], typer.Option("--netns", help="file of the namespace, such as /run/netns/NAME")] = None,
    pid: Annotated[Optional[int], typer.Option(help="a process in the namespace (a container, a Mininet host)")] = None,
    key: Annotated[Optional[Path], typer.Option(help="key file, mode 600: signs and checks all signalling")] = None,
    name: Annotated[str, typer.Option(help="what the agent calls its host")] = "",
    idle: Annotated[float, typer.Option(help="seconds after which a silent session is forgotten")] = 7200.0,
    heartbeat: Annotated[
        float, typer.Option(help="seconds of silence after which neighbours are asked whether a session lives; 0: never")
    ] = 0.0,
    throttle: Annotated[
        Optional[str], typer.Option(metavar="zero|BYTES", help="most window senders here are shown meanwhile; 16384 is usual")
    ] = None,
    policies: Annotated[Optional[Path], typer.Option(help="policies from the start: a file as `policy apply` takes it")] = None,
    domain: Annotated[
        Optional[list[str]], typer.Option(metavar="NETWORK=KEYFILE", help="agents with another key (NETWORK=: none); repeatable")
    ] = None,
    backend: Annotated[str, typer.Option(metavar="ebpf|dpdk", help="the data path: programs in the kernel, or DPDK")] = "ebpf",
    poll: Annotated[bool, typer.Option("--poll", help="dpdk: never sleeps, takes a whole processor")] = False,
    workers: Annotated[int, typer.Option(min=1, max=16, help="dpdk: cores that work")] = 1,
    interface: Annotated[
        Optional[list[str]], typer.Option(help="touches only this one; repeatable (default: all that have an address)")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="takes the data path away when it ends, as `agent forget`")] = False,
) -> None:
    """Runs the agent of a namespace (default: this one) in the foreground until Ctrl-C."""
    from dysco_ns.agent.backends import BACKENDS
    from dysco_ns.agent.daemon import Settings, forget_namespace, run_here
    from dysco_ns.agent.domains import BadDomain, parse_domains
    from dysco_ns.agent.keys import BadKey, read_key
    from dysco_ns.agent.policies import BadPolicy, preload
    from dysco_ns.dpdk.process import StartFailed
    from dysco_ns.ebpf.loader import LayoutMismatch, LoadFailed

    if os.geteuid():
        fail("an agent takes over its namespace's interfaces and needs root: run it with sudo")
    if backend not in BACKENDS:
        fail(f"--backend {backend}: {' or '.join(BACKENDS)}", 2)
    if path and pid:
        fail("give --netns or --pid, not both", 2)
    try:
        secret = read_key(key) if key else None
        if path or pid:
            netns.enter(path or netns.path_of(pid))
        if policies:
            preload(netns.policies_path(netns.inode(netns.path_of())), _read_policies(policies))
        settings = Settings(
            name or f"pid {os.getpid()}",
            secret,
            idle_s=idle,
            domains=parse_domains(domain or []),
            heartbeat_s=heartbeat,
            throttle=_throttle(throttle),
            backend=backend,
            poll=poll,
            workers=workers,
            interfaces=tuple(interface or ()),
        )
        try:
            run_here(settings, ready=lambda: print("ready", flush=True))
        finally:
            if forget:
                forget_namespace(netns.inode(netns.path_of()))
    except (BadKey, BadDomain, BadPolicy, LayoutMismatch, LoadFailed, StartFailed, OSError) as error:
        fail(str(error))


def _read_policies(file: Path) -> list[dict[str, Any]]:
    """What `policy apply` and `agent run --policies` read."""
    try:
        policies = json.loads(file.read_text())
    except OSError as error:
        fail(f"{file}: {error.strerror}", 2)
    except ValueError as error:
        fail(f"{file}: not JSON: {error}", 2)
    if not isinstance(policies, list) or not all(isinstance(p, dict) for p in policies):
        fail(f"{file}: a list of policies is expected", 2)
    return policies


def _throttle(text: str | None) -> int | None:
    """Bytes of window; None: no limit."""
    if text is None or text == "off":
        return None
    if text == "zero":
        return 0
    if not text.isdigit():
        fail(f"--throttle {text}: use off, zero, or a number of bytes", 2)
    return int(text)


@agent.command("forget")
def agent_forget(
    path: Annotated[Optional[Path], typer.Option("--netns", help="file of the namespace, such as /run/netns/NAME")] = None,
) -> None:
    """Takes the data path away that an agent has left in a namespace (default: this one); its sessions end.  May run twice."""
    from dysco_ns.agent.daemon import forget_namespace

    if os.geteuid():
        fail("a data path can be taken away by root only: run it with sudo")
    try:
        if path:
            netns.enter(path)
        namespace = netns.inode(netns.path_of())
        if _answers(AgentClient(netns.socket_path(namespace))):
            fail("the agent of this namespace runs: end it first")
        forget_namespace(namespace)
    except OSError as error:
        fail(str(error))


def _answers(client: AgentClient) -> bool:
    try:
        return bool(client.request("ping"))
    except (NoAgent, AgentRefused):
        return False


@agent.command("tune")
def agent_tune(
    heartbeat: Annotated[Optional[float], typer.Option(help="seconds of silence, 0: never")] = None,
    throttle: Annotated[Optional[str], typer.Option(metavar="off|zero|BYTES")] = None,
    linger: Annotated[Optional[float], typer.Option(help="most seconds for which a session that is over stays (60)")] = None,
    tag: Annotated[Optional[str], typer.Option(metavar="mark|option", help="option: packets go to user space here")] = None,
    at: At = None,
) -> None:
    """Changes what a running agent was started with."""
    fields: dict[str, Any] = {"heartbeat_s": heartbeat} if heartbeat is not None else {}
    if throttle is not None:
        fields["throttle"] = _throttle(throttle)
    if linger is not None:
        fields["linger_s"] = linger
    if tag is not None:
        fields["tag"] = tag
    client(at).request("tune", **fields)


@type_.command("set")
def type_set(
    name: str,
    members: Annotated[list[str], typer.Argument(help="middleboxes: addresses or names")],
    choose: Annotated[str, typer.Option(help="round-robin, or fewest: the one with the fewest sessions")] = "round-robin",
    at: At = None,
) -> None:
    """Makes or changes a type; policies and reconfigurations name it in place of a middlebox."""
    client(at).request("type_set", name=name, members=members, choose=choose)


@type_.command("list")
def type_list(at: At = None, as_json: Json = False) -> None:
    """The types of an agent, and how many sessions each middlebox has from here."""
    types = client(at).request("type_list")["types"]
    if as_json:
        print(json.dumps({"schema": 1, "types": types}, indent=1))
        return
    for t in types:
        members = "  ".join(f"{member} ({count})" for member, count in t["sessions"].items())
        print(f"{t['name']}  [{t['choose']}]  {members}")


@type_.command("remove")
def type_remove(name: str, at: At = None) -> None:
    """Removes a type that no policy uses."""
    client(at).request("type_remove", name=name)


@key.command("set")
def key_set(
    number: Annotated[int, typer.Argument(help="0 to 3; the first key of an agent is 0")],
    file: Annotated[Path, typer.Argument(help="key file, mode 600")],
    use: Annotated[bool, typer.Option(help="sign with it from now on")] = False,
    domain: Annotated[Optional[str], typer.Option(help="network of the domain, as the agent was told")] = None,
    at: At = None,
) -> None:
    """Makes a key valid at an agent: what is signed with it is accepted."""
    reply = client(at).request("key_set", number=number, file=str(file.resolve()), use=use, domain=domain)
    print(f"signs with key {reply['signing']}")


@key.command("drop")
def key_drop(
    number: int,
    domain: Annotated[Optional[str], typer.Option(help="network of the domain, as the agent was told")] = None,
    at: At = None,
) -> None:
    """A key is valid no longer."""
    client(at).request("key_drop", number=number, domain=domain)


@policy.command("add")
def policy_add(
    filter_: Annotated[str, typer.Argument(metavar="FILTER", help="predicate on the SYN, pcap-filter(7) syntax")],
    chain: Annotated[Optional[list[str]], typer.Argument(help="middleboxes: addresses, names or types")] = None,
    at: At = None,
    on_no_agent: Annotated[str, typer.Option(help="no agent at the next hop: fail or bypass")] = "fail",
    ends_at: Annotated[str, typer.Option(help="edge router that ends the chain for a server without an agent")] = "",
) -> None:
    """Adds a policy; sessions that begin from now on follow it."""
    fields = {"filter": filter_, "chain": chain or [], "on_no_agent": on_no_agent, "ends_at": ends_at}
    reply = client(at).request("policy_add", **fields)
    print(f"policy {reply['id']}")


@policy.command("list")
def policy_list(at: At = None, as_json: Json = False) -> None:
    """The policies of an agent, in the order in which they are tried."""
    policies = client(at).request("policy_list")["policies"]
    if as_json:
        print(json.dumps({"schema": 1, "policies": policies}, indent=1))
        return
    for p in policies:
        end = f", ends at {p['ends_at']}" if p["ends_at"] else ""
        print(f"{p['id']:4}  {p['filter']}  ->  {' '.join(p['chain']) or '(no middlebox)'}{end}  [{p['on_no_agent']}]")


@policy.command("remove")
def policy_remove(number: int, at: At = None) -> None:
    """Removes a policy; existing sessions keep their chain."""
    client(at).request("policy_remove", id=number)


@policy.command("apply")
def policy_apply(file: Path, at: At = None) -> None:
    """Replaces all policies by those of a JSON file: [{"filter": ..., "chain": [...]}, ...].  All or nothing."""
    ids = client(at).request("policy_apply", policies=_read_policies(file))["ids"]
    print(f"{len(ids)} policies")


@app.command()
def sessions(at: At = None, as_json: Json = False) -> None:
    """Sessions of an agent: five-tuples, chain, state, deltas, betas, counters."""
    reply = client(at).request("sessions")
    if as_json:
        print(json.dumps(reply, indent=1))
        return
    table = Table("session", "five-tuple", "left", "right", "role", "state", "lock")
    for s in reply["sessions"]:
        table.add_row(s["id"], s["tuple"], s["left"] or "-", s["right"] or "-", s["role"], s["state"], s["lock"])
    Console().print(table)


@app.command()
def reconfigure(
    session: Annotated[Optional[str], typer.Option(help="a session's ID")] = None,
    match: Annotated[Optional[str], typer.Option(help="sessions whose five-tuple matches this filter")] = None,
    all_: Annotated[bool, typer.Option("--all", help="all sessions of the agent")] = False,
    insert: Annotated[Optional[str], typer.Option(metavar="M[,M2]", help="middleboxes that come in")] = None,
    after: Annotated[Optional[str], typer.Option(help="right of this host of the chain (default: of the one asked)")] = None,
    before: Annotated[Optional[str], typer.Option(help="left of this host of the chain")] = None,
    remove: Annotated[Optional[str], typer.Option(metavar="M", help="middlebox that leaves")] = None,
    replace: Annotated[Optional[str], typer.Option(metavar="M=M2[,M3]", help="middlebox that others replace")] = None,
    chain: Annotated[Optional[str], typer.Option(metavar="M1,M2", help="the whole chain, '' for none")] = None,
    migrate: Annotated[bool, typer.Option(help="with --replace M=M2: M2 gets what M's conntrack knows of the session")] = False,
    wait: Annotated[bool, typer.Option(help="wait and say how it ended")] = True,
    timeout: Annotated[float, typer.Option(help="seconds to wait for each session")] = 30.0,
    retries: Annotated[int, typer.Option(min=0, help="tries after another reconfiguration was in the way")] = RETRIES,
    retry_pause: Annotated[float, typer.Option(min=0.0, help="seconds before the first retry; doubles")] = RETRY_PAUSE_S,
    at: At = None,
    everywhere: Annotated[bool, typer.Option("--everywhere", help="each agent of the lab, among what begins there")] = False,
    as_json: Json = False,
) -> None:
    """Changes the chain of live sessions.

    The host that is asked only has to be on their chain: the agent that must lead is found from there.
    """
    if everywhere and (at or session is not None):
        fail("--everywhere goes with --match or --all, and without --at", 2)
    if sum((session is not None, match is not None, all_)) != 1:
        fail("say which sessions: one of --session, --match, --all", 2)
    if sum(x is not None for x in (insert, remove, replace, chain)) != 1:
        fail("say what to change: one of --insert, --remove, --replace, --chain", 2)
    if (after or before) and (not insert or (after and before)):
        fail("--after or --before says where --insert puts its middleboxes", 2)
    if migrate and (not replace or len(_replacement(replace)[1]) != 1):
        fail("--migrate goes with --replace M=M2, one for one", 2)
    change = Change(
        remove=remove,
        replace=_replacement(replace) if replace else None,
        insert=_listed(insert),
        after=after,
        before=before,
        chain=_listed(chain) if chain is not None else None,
        migrate=migrate,
    )
    selected: dict[str, Any] = {"session": session, "match": match, "all": all_ or None}
    try:
        orders = Orders(at, {k: v for k, v in selected.items() if v is not None}, change, everywhere)
    except (UnknownHost, BadChange) as error:
        fail(str(error))
    how = {"wait": wait, "timeout_s": timeout, "retries": retries, "retry_pause_s": retry_pause}
    with progress(orders.total, wait and not as_json) as advance:
        results = orders.carry_out(how, advance)
    if as_json:
        print(json.dumps({"schema": 1, "results": results}, indent=1))
    for r in [] if as_json or not wait else results:
        detail = f"{r['reconfig_us']:.0f} us" if r["outcome"] == "done" else r["reason"] + retry_hint(r)
        print(f"{r['session']}  {r['outcome']}  {detail}")
    if not wait:
        print(f"{len(results)} started")
    elif not results:
        fail("no session matches" if not orders.selected else "the chain is that already")
    if any(r["outcome"] not in ("done", "started") for r in results):
        raise SystemExit(1)


@app.command()
def move(
    from_: Annotated[str, typer.Option("--from", help="the address that sessions use now")],
    to: Annotated[str, typer.Option(help="the address that they shall use")],
    timeout: Annotated[float, typer.Option(help="seconds to wait for each session")] = 30.0,
    at: At = None,
    as_json: Json = False,
) -> None:
    """Moves the live sessions of an end host to another address of it; then the first may go."""
    results = client(at).request("move", **{"from": from_, "to": to, "timeout_s": timeout})["results"]
    if as_json:
        print(json.dumps({"schema": 1, "results": results}, indent=1))
    for r in [] if as_json else results:
        print(f"{r['session']}  {r['outcome']}  {r['reason']}{retry_hint(r)}")
    if not results:
        fail(f"no session of this host uses {from_}")
    if any(r["outcome"] != "done" for r in results):
        raise SystemExit(1)


def _listed(hosts: str | None) -> tuple[str, ...]:
    return tuple(h for h in (hosts or "").split(",") if h)


def _replacement(text: str) -> tuple[str, tuple[str, ...]]:
    old, equals, new = text.partition("=")
    if not equals or not old or not _listed(new):
        fail(f"--replace {text}: write M=M2, the middlebox that leaves and those that take its place", 2)
    return old, _listed(new)


@contextmanager
def progress(total: int, shown: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal for long work; elsewhere nothing."""
    if not shown or total < 2 or not sys.stderr.isatty():
        yield lambda n: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sessions", total=total)
        yield lambda n: bar.advance(task, n)


def retry_hint(result: dict[str, Any]) -> str:
    return " (a retry makes sense)" if result["retry"] else ""


@app.command()
def events(at: At = None, as_json: Json = False) -> None:
    """Protocol events from now on, one line each, with a monotonic time stamp in ns, until Ctrl-C."""
    for event in client(at).events():
        if as_json:
            print(json.dumps(event), flush=True)
        else:
            rest = " ".join(f"{k}={v}" for k, v in event.items() if k not in ("ts_ns", "event", "session") and v)
            print(f"{event['ts_ns']} {event['event']:20} {event.get('session', '')} {rest}", flush=True)


def main() -> None:
    from dysco_ns.agent.filters import BadFilter

    try:
        app()
    except AgentRefused as error:
        fail(str(error) + (" (a retry makes sense)" if error.retry else ""))
    except (NoAgent, BadFilter) as error:
        fail(str(error))
    except KeyboardInterrupt:
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
