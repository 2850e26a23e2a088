// An agent in another language: the npm package `openai`, unchanged, configured by its environment alone.
const OpenAI = require("openai");

async function main() {
  const input = await new Promise((resolve) => {
    let text = "";
    process.stdin.on("data", (part) => (text += part)).on("end", () => resolve(JSON.parse(text)));
  });
  const client = new OpenAI();
  const tools = [
    {
      type: "function",
      function: { name: "add", parameters: { type: "object", properties: { a: { type: "integer" } } } },
    },
  ];
  const messages = [{ role: "user", content: input.question }];
  const first = await client.chat.completions.create({ model: "any", messages, tools });
  const called = first.choices[0].message.tool_calls ?? [];
  messages.push(first.choices[0].message);
  for (const call of called) {
    const result = JSON.parse(call.function.arguments).a + 1;
    messages.push({ role: "tool", tool_call_id: call.id, content: String(result) });
  }
  const stream = await client.chat.completions.create({ model: "any", messages, stream: true });
  let streamed = "";
  for await (const chunk of stream) streamed += chunk.choices[0]?.delta?.content ?? "";
  const response = await client.responses.create({ model: "any", input: "and now?" });
  await fetch(`${process.env.RAYBOLT_RUN_URL}/spans`, {
    method: "POST",
    headers: { authorization: `Bearer ${process.env.RAYBOLT_RUN_KEY}` },
    body: JSON.stringify({ reward: 0.5 }),
  });
  console.log("done");
  console.log(JSON.stringify({ called: called.length, streamed, response: response.output_text }));
}

main();
