// @modelcontextprotocol/sdk 1.x: it checks each result against the tool's output schema, the failed ones too.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { args, command, headers, ofResult, saw, url } from "./scenario.mjs";

const asked = [];
const client = new Client({ name: "ts1", version: "1" }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, (request) => {
  asked.push(request.params.message);
  return { action: "accept", content: { confirm: true } };
});
const remote = () => new StreamableHTTPClientTransport(url, { requestInit: { headers } });
await client.connect(url ? remote() : new StdioClientTransport({ command, args }));
const lists = async () => (await client.listTools()).tools.map((tool) => tool.name);
const calls = async (name, given) => ofResult(await client.callTool({ name, arguments: given }));
await saw(lists, calls, { asked });
await client.close();
