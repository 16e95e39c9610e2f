// @modelcontextprotocol/client 2.x. `legacy` begins with the handshake, `auto` is the era without one.

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { args, command, headers, ofResult, option, saw, url } from "./scenario.mjs";

const asked = [];
const client = new Client(
  { name: "ts2", version: "1" },
  { versionNegotiation: { mode: option }, capabilities: { elicitation: { form: {} } } },
);
client.setRequestHandler("elicitation/create", (request) => {
  asked.push(request.params.message);
  return { action: "accept", content: { confirm: true } };
});
const remote = () => new StreamableHTTPClientTransport(url, { requestInit: { headers } });
await client.connect(url ? remote() : new StdioClientTransport({ command, args }));
const lists = async () => (await client.listTools()).tools.map((tool) => tool.name);
const calls = async (name, given) => ofResult(await client.callTool({ name, arguments: given }));
await saw(lists, calls, { asked, protocol: client.getNegotiatedProtocolVersion?.() });
await client.close();
