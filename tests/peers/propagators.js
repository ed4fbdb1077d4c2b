// OpenTelemetry's propagators for JavaScript, for `propagators.py`: a line of JSON in, a line out.
// {format, write: [trace, span, sampled]} → the headers; {format, read: headers} → [trace, span, sampled] or null.

const { ROOT_CONTEXT, trace } = require("@opentelemetry/api");
const { W3CTraceContextPropagator } = require("@opentelemetry/core");
const { B3InjectEncoding, B3Propagator } = require("@opentelemetry/propagator-b3");
const { JaegerPropagator } = require("@opentelemetry/propagator-jaeger");
const { AWSXRayPropagator } = require("@opentelemetry/propagator-aws-xray");
const { OTTracePropagator } = require("@opentelemetry/propagator-ot-trace");

const propagators = {
  w3c: new W3CTraceContextPropagator(),
  b3: new B3Propagator({ injectEncoding: B3InjectEncoding.SINGLE_HEADER }),
  b3multi: new B3Propagator({ injectEncoding: B3InjectEncoding.MULTI_HEADER }),
  jaeger: new JaegerPropagator(),
  xray: new AWSXRayPropagator(),
  ottrace: new OTTracePropagator(),
};

const setter = { set: (carrier, name, value) => (carrier[name.toLowerCase()] = String(value)) };
// Node gives several lines of one name as one, by commas.
const getter = { get: (carrier, name) => carrier[name.toLowerCase()]?.join(", "), keys: Object.keys };

function write(propagator, [traceId, spanId, sampled]) {
  const headers = {};
  const span = { traceId, spanId, traceFlags: sampled ? 1 : 0, isRemote: false };
  propagator.inject(trace.setSpanContext(ROOT_CONTEXT, span), headers, setter);
  return headers;
}

function read(propagator, headers) {
  const span = trace.getSpanContext(propagator.extract(ROOT_CONTEXT, headers, getter));
  return span && trace.isSpanContextValid(span) ? [span.traceId, span.spanId, (span.traceFlags & 1) === 1] : null;
}

require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const asked = JSON.parse(line);
  const propagator = propagators[asked.format];
  const answer = asked.write ? write(propagator, asked.write) : read(propagator, asked.read);
  process.stdout.write(JSON.stringify(answer) + "\n");
});
