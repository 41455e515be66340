// Talking to the API: requests with the key, refusals as errors, and the stream of events.

const KEY = "interloom-key";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const getKey = () => sessionStorage.getItem(KEY) ?? "";
export const setKey = (key) => sessionStorage.setItem(KEY, key);

export async function call(path, { method = "GET", body, signal } = {}) {
  const headers = {};
  if (getKey()) headers.Authorization = `Bearer ${getKey()}`;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method, headers, signal, body: body && JSON.stringify(body), cache: "no-store",
  });
  if (answer.ok) return answer;
  let message = `The server answers with status ${answer.status}.`;
  try {
    message = (await answer.json()).error.message;
  } catch { /* not our format: a proxy's page */ }
  const wait = answer.headers.get("Retry-After");
  throw new Refused(answer.status, wait ? `${message} Try again in ${wait} s.` : message);
}

// Server-sent events of a response, as parsed JSON.
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: "));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(6)).join("\n"));
    }
  }
}
