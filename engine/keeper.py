"""The supervisor of one step: starts it, keeps its output, ends when nothing of it is alive.

Run as `python -I -S keeper.py <control fd> <output fd>`, standard library only. On the control
socket go lines of JSON, on the output pipe goes what the step prints. End of file on the control
socket means that the worker is gone: everything is killed at once, then `on_orphaned` is run.

Commands   start {argv, cwd, env, head_path, tail_paths, head_bytes, tail_bytes, pids_path, grace,
           brand, on_orphaned}, cancel {grace}, disown {} (forget on_orphaned: the worker leaves)
Events     ready {pid, boot_id, start_ticks}, started {pid, start_ticks}, failed_to_start {message},
           dropped {bytes}, exited {code, signal}, done {code, signal, stopped, killed, survivors,
           took_ms, log_bytes, dropped, log_error}, gone {}, error {message}

Why a kill leaves nothing: the keeper is a child subreaper, so whatever loses its parent becomes the
keeper's own child, and the kernel's ECHILD is the proof that there is none left. A number is
signalled only while it cannot belong to anybody else: an unreaped child of the keeper, a process
group of one, or a process held by a pidfd whose start time was compared after opening it.

Times are seconds by the monotonic clock, start times are kernel ticks since boot.
"""

from __future__ import annotations

import os
import select
import sys
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any, NoReturn

    from . import keeper_family as family
    from .keeper_channel import Channel
    from .keeper_launch import become_step, prepare, spawn_detached, stand_apart
    from .keeper_output import PIPE_BYTES, Output, pipe_size
    from .keeper_roster import Roster
else:
    # Run by its path and isolated: the folder is not searched by itself, and last is safest.
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    import _signal as signal  # `signal` itself costs 8 ms at import, for its enums

    import keeper_family as family
    from keeper_channel import Channel
    from keeper_launch import become_step, prepare, spawn_detached, stand_apart
    from keeper_output import PIPE_BYTES, Output, pipe_size
    from keeper_roster import Roster

IDLE, RUNNING, STOPPING, KILLING = range(4)
KILL_CAP, KILL_NAP = 10.0, 0.001
COUNT_COST = 0.05  # longest walk before a kill, only to count exactly
TERM_PERIOD, RECORD_PERIOD, TELL_PERIOD = 0.025, 0.05, 0.1
DEEP_EVERY, FLOOD_BYTES = 10, 1 << 16
WAIT_ALL = 0x40000000 if family.LINUX else 0  # __WALL: also children without SIGCHLD at their end


def wake_up(_number: int, _frame: object) -> None:
    """Let a SIGCHLD end the poll: Python tells the wake-up pipe only of signals with a handler."""


class Keeper:
    """One step from its start to its last process: a single loop around poll, no threads."""

    def __init__(self, control: int, forward: int) -> None:
        self.pid = os.getpid()
        self.forward = forward
        self.phase = IDLE
        self.cancelled = self.failed = self.done_sent = False
        self.on_orphaned: list[str] | None = None
        self.plan: dict[str, Any] = {}
        self.output: Output | None = None
        self.leader = self.leader_ticks = 0
        self.leader_ended = False
        self.code: int | None = None
        self.signal: int | None = None
        self.report = -1
        self.stop_began = self.kill_began = self.deadline = 0.0
        self.next_term = self.next_record = self.next_kill = self.next_tell = 0.0
        self.walk_cost = 0.0
        self.termed: set[tuple[int, int]] = set()
        self.hit: set[int] = set()
        self.groups = {os.getpgrp()}
        self.passes = self.told = 0
        self.children_changed = False
        self.wake, writer = os.pipe()
        for fd in (self.wake, writer, control, forward):
            os.set_blocking(fd, False)
            os.set_inheritable(fd, False)
        signal.signal(signal.SIGCHLD, wake_up)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.poller = select.poll()
        self.poller.register(self.wake, select.POLLIN)
        self.channel = Channel(control, self.poller)

    def run(self) -> NoReturn:
        """Serve until the step is gone; ends the process."""
        ticks = family.start_ticks_of(self.pid)
        ready = f'{{"event":"ready","pid":{self.pid},"boot_id":"{family.boot_id()}",'
        self.channel.greet(f'{ready}"start_ticks":{ticks}}}')
        prepare()
        while True:
            self.tick()  # before the first wait: the worker may be gone already, and then nothing ever comes
            for fd, _ in self.poller.poll(self.timeout()):
                if fd == self.wake:
                    os.read(fd, 4096)
                    self.children_changed = True
                elif fd == self.channel.fd:
                    self.channel.flush()
                    for command in self.channel.receive():
                        self.obey(command)
                elif fd == self.report:
                    self.read_report()
                elif self.output and fd == self.output.source:
                    self.drain(self.output)

    def timeout(self) -> int | None:
        """Milliseconds until something is due; None when only an event can bring work."""
        if self.phase == IDLE:
            return None
        if self.phase == KILLING:
            due = self.next_kill
        elif self.phase == STOPPING:
            due = min(self.next_term, self.deadline, self.next_record)
        else:
            due = self.next_record
        if self.output and self.output.dropped != self.told:
            due = min(due, self.next_tell)
        return max(0, int((due - monotonic()) * 1000 + 0.999))

    def tick(self) -> None:
        """Do what is due."""
        if self.channel.lost and self.phase != KILLING:
            if self.phase == IDLE:
                self.leave()
            self.kill_all()
        if self.phase == IDLE:
            return
        if self.phase != KILLING and self.children_changed:
            self.reap_adopted()
        now = monotonic()
        if self.phase == STOPPING and now >= self.deadline:
            self.kill_all()
        if self.phase == STOPPING and now >= self.next_term:
            self.terminate()
        if self.phase in (RUNNING, STOPPING) and now >= self.next_record:
            self.record()
        if self.phase == KILLING and (self.children_changed or now >= self.next_kill):
            self.kill_pass()
        if self.output and self.output.dropped != self.told and now >= self.next_tell:
            self.tell_dropped()

    def drain(self, output: Output) -> None:
        """Take in what the step printed."""
        size = output.pump()
        if size == 0:
            self.poller.unregister(output.source)
        elif 4096 <= size < FLOOD_BYTES:
            select.poll().poll(1)  # a flood in small pieces costs more than it need: let it gather

    def obey(self, command: dict[str, Any]) -> None:
        """Carry out one command of the worker."""
        if command["cmd"] == "start" and self.phase == IDLE:
            self.start(command)
        elif command["cmd"] == "cancel":
            self.cancel(command["grace"])
        elif command["cmd"] == "disown":
            self.on_orphaned = None

    def tell_dropped(self) -> None:
        """How many bytes the live output lost so far."""
        if self.output and self.output.dropped != self.told:
            self.told, self.next_tell = self.output.dropped, monotonic() + TELL_PERIOD
            self.channel.send("dropped", bytes=self.told)

    def start(self, plan: dict[str, Any]) -> None:
        """Start the leader; what became of its exec arrives on the report pipe."""
        self.plan = plan
        self.roster = Roster(plan["pids_path"])
        self.on_orphaned = plan.get("on_orphaned")
        self.stop_began = monotonic()
        if self.cancelled:
            self.finish()
        source, sink = os.pipe()
        pipe_size(source, PIPE_BYTES)
        pipe_size(self.forward, PIPE_BYTES)
        os.set_blocking(source, False)
        self.output = Output(source, self.forward, plan)
        self.report, answer = os.pipe()
        os.set_blocking(self.report, False)
        # A signal that comes before the child has its default dispositions must wait, not be lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
        try:
            self.leader = os.fork()
        except OSError as error:
            self.fail_to_start(f"cannot start a process: {error.strerror}")
            self.finish()
        if self.leader == 0:
            become_step(plan, self.pid, sink, answer)
        self.leader_ticks = family.start_ticks_of(self.leader)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(sink)
        os.close(answer)
        self.phase = RUNNING
        self.poller.register(source, select.POLLIN)
        self.poller.register(self.report, select.POLLIN)
        self.record()

    def fail_to_start(self, message: str) -> None:
        """Tell why there is no step; `done` follows."""
        self.failed = True
        self.channel.send("failed_to_start", message=message)

    def read_report(self) -> None:
        """Hear of the child's exec: end of file is success, text is the reason why not."""
        if self.report < 0:
            return
        try:
            text = os.read(self.report, 1 << 16)
        except BlockingIOError:
            return
        self.poller.unregister(self.report)
        os.close(self.report)
        self.report = -1
        if text:
            self.fail_to_start(text.decode(errors="replace"))
        else:
            self.channel.send("started", pid=self.leader, start_ticks=self.leader_ticks)

    def reap_adopted(self) -> None:
        """Collect what ended, but keep the leader a zombie: its number must stay its own."""
        self.children_changed = False
        for which, number in ((os.P_PID, self.leader), (os.P_ALL, 0)):
            while info := os.waitid(which, number, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                if info.si_pid == self.leader:
                    self.leader_exit(info.si_code, info.si_status)
                    self.kill_all()
                    return
                os.waitpid(info.si_pid, 0)

    def leader_exit(self, how: int, status: int) -> None:
        """Note and tell how the leader ended (a waitid code and status)."""
        if self.leader_ended:
            return
        self.leader_ended = True
        self.read_report()
        if self.failed:
            return
        self.code, self.signal = (status, None) if how == os.CLD_EXITED else (None, status)
        self.channel.send("exited", code=self.code, signal=self.signal)

    def record(self) -> None:
        """Keep the list of live descendants on disk, for a sweep after worker and keeper died."""
        began = monotonic()
        self.roster.keep(family.walk(self.pid))
        now = monotonic()
        self.walk_cost = now - began
        self.next_record = now + max(RECORD_PERIOD, 60 * self.walk_cost)

    def cancel(self, grace: float | None) -> None:
        """TERM, then KILL when the leader is gone or the grace is over; may be called again."""
        if self.phase == IDLE:
            self.cancelled = True
            return
        if self.phase == RUNNING:
            self.reap_adopted()
        if self.phase == KILLING:
            return
        now = monotonic()
        ends = now + max(0.0, self.plan["grace"] if grace is None else grace)
        if self.phase == RUNNING:
            self.cancelled = True
            self.stop_began, self.deadline = now, ends
            self.phase = STOPPING
        self.deadline = min(self.deadline, ends)
        self.next_term = now
        if self.deadline <= now:
            self.kill_all()

    def terminate(self) -> None:
        """TERM to every descendant that has not had it, CONT so that a stopped one hears it."""
        began = monotonic()
        for pid, ticks in family.walk(self.pid).items():
            if (pid, ticks) not in self.termed:
                self.termed.add((pid, ticks))
                if family.signal_held(pid, ticks, signal.SIGTERM, signal.SIGCONT):
                    self.hit.add(pid)
        now = monotonic()
        self.next_term = now + max(TERM_PERIOD, 10 * (now - began))

    def kill_all(self) -> None:
        """From here on everything is killed; the leader is unreaped, so its group is ours."""
        self.phase = KILLING
        self.kill_began = self.next_kill = monotonic()
        if not self.cancelled:
            self.stop_began = self.kill_began
        if self.walk_cost < COUNT_COST:
            self.hit.update(family.walk(self.pid))
        self.kill_group(self.leader)
        if not self.leader_ended:
            family.kill_child(self.leader)

    def kill_group(self, group: int) -> None:
        """KILL at one stroke the group of an unreaped child: no fork slips through."""
        if group not in self.groups:
            self.groups.add(group)
            try:
                os.killpg(group, signal.SIGKILL)
            except OSError:
                self.groups.discard(group)  # not there yet: the child has not called setsid

    def kill_pass(self) -> None:
        """Reap what is dead with its group, kill every child there is, until ECHILD."""
        self.children_changed = False
        try:
            while info := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                # A zombie cannot change its group any more, and the group lasts while it does.
                self.kill_group(os.getpgid(info.si_pid))
                by_itself = info.si_pid == self.leader and self.leader_ended
                if info.si_code == os.CLD_KILLED and info.si_status == 9 and not by_itself:
                    self.hit.add(info.si_pid)
                if info.si_pid == self.leader:
                    self.leader_exit(info.si_code, info.si_status)
                os.waitpid(info.si_pid, WAIT_ALL)
            children = family.children_of(self.pid)
            if not children:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            self.finish()
        for pid in children:
            family.kill_child(pid)
        self.passes += 1
        if self.passes % DEEP_EVERY == 0:
            # Below a child that cannot be killed nobody would ever become ours by adoption.
            for pid, ticks in family.walk(self.pid).items():
                if pid not in children and family.signal_held(pid, ticks, signal.SIGKILL):
                    self.hit.add(pid)
        now = monotonic()
        late = now - self.kill_began - KILL_CAP
        self.next_kill = now + (KILL_NAP if late < 0 else min(1.0, 0.1 + late / 10))
        if late >= 0 and not self.done_sent:
            self.tell_done(max(1, len(family.walk(self.pid))))
        if self.done_sent and self.channel.lost and self.on_orphaned:
            self.leave()  # the next worker's sweep has the list, and a fresh look

    def tell_done(self, survivors: int) -> None:
        """Tell the outcome, once: after all output, and only with true numbers."""
        self.done_sent = True
        if self.output:
            self.output.finish()
            self.tell_dropped()
        self.channel.send(
            "done",
            code=self.code,
            signal=self.signal,
            stopped=self.cancelled,
            killed=len(self.hit),
            survivors=survivors,
            took_ms=round((monotonic() - self.stop_began) * 1000, 3),
            log_bytes=self.output.bytes if self.output else 0,
            dropped=self.told,
            log_error=self.output.log_error if self.output else None,
        )

    def finish(self) -> NoReturn:
        """Nothing of the step is alive: say so and end."""
        if self.done_sent:
            self.channel.send("gone")
        else:
            self.tell_done(0)
        self.roster.remove()
        self.leave()

    def leave(self) -> NoReturn:
        """End the process; a step that lost its worker gets a new one to record that."""
        self.channel.empty()
        if self.channel.lost and self.on_orphaned:
            spawn_detached(self.on_orphaned[0], self.on_orphaned[1:])
        os._exit(0)

    def give_up(self, error: BaseException) -> NoReturn:
        """Kill, being broken oneself, by the simplest means; end without `done`."""
        family.kill_children(self.pid)
        self.channel.send("error", message=f"{type(error).__name__}: {error}")
        self.channel.empty()
        os._exit(1)


def main() -> NoReturn:
    """Be a keeper; the arguments are the numbers of the control socket and the output pipe."""
    stand_apart()
    keeper = Keeper(int(sys.argv[1]), int(sys.argv[2]))
    try:
        keeper.run()
    except BaseException as error:
        keeper.give_up(error)


if __name__ == "__main__":
    main()
