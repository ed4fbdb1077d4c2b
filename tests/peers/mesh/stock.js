// A Node.js application that knows nothing of traces: OpenTelemetry's `auto-instrumentations-node/register` makes its spans.
// Node's client knows no `http_proxy`, so the requests are written as proxies are asked. Called with its port.

const http = require("http");
const proxy = new URL(process.env.http_proxy);

function get(url, done) {
  const { hostname, port } = proxy;
  const request = http.get({ hostname, port, path: url, headers: { host: new URL(url).host } }, (answer) => {
    let text = "";
    answer.on("data", (piece) => (text += piece)).on("end", () => done(JSON.parse(text)));
  });
  request.on("error", (error) => done({ error: String(error) }));
}

http
  .createServer((request, answer) => {
    const item = request.url.match(/^\/items\/(\d+)/)[1];
    get(`http://price.mesh/prices/${item}`, (price) => {
      answer.setHeader("content-type", "application/json");
      answer.end(JSON.stringify({ item: Number(item), price }));
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
