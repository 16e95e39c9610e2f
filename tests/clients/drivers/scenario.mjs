// What every client is asked to do, for clients in JavaScript: the same as scenario.py, which says more.

const FINAL = new Set(["completed", "failed", "cancelled"]);
const PATIENCE_MS = 60_000;
const NOBODYS = "00000000-0000-4000-8000-000000000000";

// What stands before and after `--` on the driver's command line.
export const option = process.argv[process.argv.indexOf("--") - 1];
export const [command, ...args] = process.argv.slice(process.argv.indexOf("--") + 1);

// Where the server is and the headers with the key, where it is reached over HTTP.
export const url = command.startsWith("http") ? new URL(command) : undefined;
export const headers = url && { Authorization: `Bearer ${args[0]}` };

// What a call's result holds, and how it arrived.
export function ofResult(result) {
  const text = JSON.parse(result.content.map((block) => block.text).join(""));
  const failed = result.isError ? "isError, " : "";
  if (result.structuredContent === undefined) return { body: text, how: `${failed}text` };
  const same = JSON.stringify(text) === JSON.stringify(result.structuredContent);
  return { body: text, how: same ? `${failed}structured and text` : "the text is not the structured content" };
}

export async function saw(lists, calls, facts = {}) {
  const began = performance.now();
  const seen = { ...facts, tools: (await lists()).sort() };

  async function call(tool, given = {}) {
    const answer = await calls(tool, given);
    seen.how ??= answer.how;
    return answer.body;
  }

  const { session_id } = await call("bilt_get_session");

  async function until(wanted) {
    const deadline = performance.now() + PATIENCE_MS;
    const told = [await call("bilt_get_session", { session_id })];
    while (!wanted(told.at(-1))) {
      if (performance.now() > deadline) throw new Error(`still ${JSON.stringify(told.at(-1))}`);
      const waited = { wait_seconds: 4, after_revision: told.at(-1).revision };
      told.push(await call("bilt_get_session", { session_id, ...waited }));
    }
    return told;
  }

  seen.started = await call("bilt_send_message", { session_id, message: "build" });
  seen.waited = await until((told) => FINAL.has(told.status));
  seen.read = await call("bilt_get_messages", { session_id, limit: 20 });

  await call("bilt_send_message", { session_id, message: "serve" });
  await until((told) => told.progress?.message.includes("serving"));
  seen.cancelled = await call("bilt_cancel_workflow", { session_id, reason: "the user changed their mind" });
  seen["after cancel"] = await call("bilt_get_session", { session_id });

  seen.refused = await calls("bilt_cancel_workflow", { session_id });
  seen.unknown = await calls("bilt_get_session", { session_id: NOBODYS });

  await call("bilt_send_message", { session_id, message: "publish" });
  const gate = (await until((told) => told.pending_action)).at(-1).pending_action;
  const of = { session_id, action_id: gate.action_id };
  seen.gate = await calls("bilt_confirm_action", of);
  if (seen.gate.body.error) await call("bilt_cancel_action", of);
  seen["after gate"] = (await until((told) => FINAL.has(told.status))).at(-1);
  seen.seconds = Math.round(performance.now() - began) / 1000;
  console.log(JSON.stringify(seen));
}
