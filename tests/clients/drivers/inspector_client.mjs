// MCP Inspector's command line: each call is a program of its own, and so is the server that it starts.

import { spawnSync } from "node:child_process";
import { args, command, headers, ofResult, option, saw, url } from "./scenario.mjs";

const CLI = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
const cli = new URL(CLI, import.meta.url).pathname;
const TOOL_FAILED = 5;

function inspect(...words) {
  const era = ["--protocol-era", option];
  const key = Object.entries(headers ?? {}).map(([name, value]) => `${name}: ${value}`);
  const server = url ? [`${url}`, "--transport", "http", "--header", ...key] : [command, ...args];
  const done = spawnSync(process.execPath, [cli, "--cli", ...server, ...era, ...words], { encoding: "utf8" });
  if (done.status !== 0 && done.status !== TOOL_FAILED) throw new Error(`${done.stderr}`);
  return JSON.parse(done.stdout);
}

const lists = async () => inspect("--method", "tools/list").tools.map((tool) => tool.name);
const calls = async (name, given) =>
  ofResult(inspect("--method", "tools/call", "--tool-name", name, "--tool-args-json", JSON.stringify(given)));
await saw(lists, calls);
