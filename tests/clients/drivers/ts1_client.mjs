// @modelcontextprotocol/sdk 1.x: it checks each result against the tool's output schema, the failed ones too.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { args, command, ofResult, saw } from "./scenario.mjs";

const asked = [];
const client = new Client({ name: "ts1", version: "1" }, { capabilities: { elicitation: {} } });
client.setRequestHandler(ElicitRequestSchema, (request) => {
  asked.push(request.params.message);
  return { action: "accept", content: { confirm: true } };
});
await client.connect(new StdioClientTransport({ command, args }));
const lists = async () => (await client.listTools()).tools.map((tool) => tool.name);
const calls = async (name, given) => ofResult(await client.callTool({ name, arguments: given }));
await saw(lists, calls, { asked });
await client.close();
