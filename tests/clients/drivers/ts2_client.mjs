// @modelcontextprotocol/client 2.x. `legacy` begins with the handshake, `auto` is the era without one.

import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { args, command, ofResult, option, saw } from "./scenario.mjs";

const asked = [];
const client = new Client(
  { name: "ts2", version: "1" },
  { versionNegotiation: { mode: option }, capabilities: { elicitation: { form: {} } } },
);
client.setRequestHandler("elicitation/create", (request) => {
  asked.push(request.params.message);
  return { action: "accept", content: { confirm: true } };
});
await client.connect(new StdioClientTransport({ command, args }));
const lists = async () => (await client.listTools()).tools.map((tool) => tool.name);
const calls = async (name, given) => ofResult(await client.callTool({ name, arguments: given }));
await saw(lists, calls, { asked, protocol: client.getNegotiatedProtocolVersion?.() });
await client.close();
