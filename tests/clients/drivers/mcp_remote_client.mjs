// mcp-remote: a bridge for clients that know only how to start a server. Here such a client is TypeScript's, 1.x.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { headers, ofResult, saw, url } from "./scenario.mjs";

const BRIDGE = new URL("node_modules/mcp-remote/dist/proxy.js", import.meta.url).pathname;
const key = `Authorization: ${headers.Authorization}`;
const args = [BRIDGE, `${url}`, "--header", key, "--allow-http", "--transport", "http-only"];

const asked = [];
const client = new Client({ name: "behind-a-bridge", version: "1" }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, (request) => {
  asked.push(request.params.message);
  return { action: "accept", content: { confirm: true } };
});
await client.connect(new StdioClientTransport({ command: process.execPath, args, stderr: "ignore" }));
const lists = async () => (await client.listTools()).tools.map((tool) => tool.name);
const calls = async (name, given) => ofResult(await client.callTool({ name, arguments: given }));
await saw(lists, calls, { asked });
await client.close();
