// mqtt.js over TLS or secure WebSocket; the lines are those of ../../README.md, and the rule is that of ../wire.py.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import mqtt from "mqtt";

const MESSAGE = {
  expiry: "messageExpiryInterval", format: "payloadFormatIndicator", alias: "topicAlias", content_type: "contentType",
  response: "responseTopic", correlation: "correlationData", subid: "subscriptionIdentifier",
};
const CONNECT = { session_expiry: "sessionExpiryInterval", receive_maximum: "receiveMaximum", alias_maximum: "topicAliasMaximum" };
const CONNACK = { ...CONNECT, assigned: "assignedClientIdentifier" };

function encode(value) {
  if (Buffer.isBuffer(value)) return value.toString("hex");
  if (Array.isArray(value)) return value.map(encode).join(":");
  if (typeof value === "boolean") return String(Number(value));
  return encodeURIComponent(value);
}

function tell(word, fields = {}) {
  const parts = [word];
  for (const [key, value] of Object.entries(fields)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined) parts.push(`${key}=${encode(one)}`);
  }
  process.stdout.write(parts.join(" ") + "\n");
}

class Request {
  constructor(line) {
    const [word, ...pairs] = line.trim().split(" ");
    this.word = word;
    this.fields = {};
    for (const pair of pairs) {
      const cut = pair.indexOf("=");
      (this.fields[pair.slice(0, cut)] ??= []).push(pair.slice(cut + 1));
    }
  }
  has(key) { return key in this.fields; }
  text(key) { return decodeURIComponent(this.fields[key]?.[0] ?? ""); }
  number(key, otherwise = 0) { return this.has(key) ? Number(this.fields[key][0]) : otherwise; }
  binary(key) { return Buffer.from(this.fields[key]?.[0] ?? "", "hex"); }

  // The properties among `names` that the request has fields for, as mqtt.js wants them.
  properties(names) {
    const found = {};
    for (const [key, name] of Object.entries(names)) {
      if (!this.has(key)) continue;
      if (key === "correlation") found[name] = this.binary(key);
      else if (key === "format") found[name] = this.number(key) === 1;
      else if (key === "content_type" || key === "response") found[name] = this.text(key);
      else found[name] = this.number(key);
    }
    for (const pair of this.fields.user ?? []) {
      const [name, value] = pair.split(":").map(decodeURIComponent);
      found.userProperties ??= {};
      // Names in order; a name that comes twice becomes a list, so mqtt.js cannot keep others between its values.
      if (name in found.userProperties) found.userProperties[name] = [found.userProperties[name], value].flat();
      else found.userProperties[name] = value;
    }
    return found;
  }
}

function fieldsOf(properties = {}, names) {
  const found = {};
  for (const [key, name] of Object.entries(names)) found[key] = properties[name];
  found.user = Object.entries(properties.userProperties ?? {}).flatMap(([name, value]) => [value].flat().map((one) => [name, one]));
  return found;
}

let client;

const actions = {
  connect(request) {
    const five = request.number("version") === 5;
    const web = request.text("transport") === "wss";
    const options = {
      protocol: web ? "wss" : "mqtts",
      host: request.text("host"), port: request.number("port"),
      ca: readFileSync(request.text("ca")),
      clientId: request.text("id"), protocolVersion: request.number("version"), clean: request.number("clean") === 1,
      keepalive: request.number("keepalive", 60), reconnectPeriod: 0, connectTimeout: 10000,
    };
    if (request.has("cert")) Object.assign(options, { cert: readFileSync(request.text("cert")), key: readFileSync(request.text("key")) });
    if (web) Object.assign(options, { path: request.text("path"), wsOptions: { ca: options.ca, cert: options.cert, key: options.key } });
    if (five) options.properties = request.properties(CONNECT);
    if (request.has("alias")) options.autoAssignTopicAlias = true;
    if (request.has("will_topic")) {
      options.will = {
        topic: request.text("will_topic"), payload: request.binary("will_payload"),
        qos: request.number("will_qos"), retain: request.number("will_retain") === 1,
      };
      if (five) options.will.properties = request.properties({ will_delay: "willDelayInterval" });
      if (five) delete options.properties.userProperties;
    }
    const mine = mqtt.connect(options);
    client = mine;
    let answered = false;
    let reason;
    const refused = (why, code) => { if (!answered) { answered = true; tell("refused", { why, reason: code }); } };
    mine.on("connect", (connack) => {
      answered = true;
      tell("connected", { present: connack.sessionPresent, ...fieldsOf(connack.properties, CONNACK) });
    });
    mine.on("error", (error) => refused(String(error), typeof error.code === "number" ? error.code : undefined));
    mine.on("disconnect", (packet) => { reason = packet.reasonCode; });
    mine.on("close", () => {
      refused("closed");
      if (client === mine) tell("closed", { reason });
    });
    mine.on("message", (topic, payload, packet) => tell("message", {
      topic, payload, qos: packet.qos, retain: packet.retain, dup: packet.dup, ...fieldsOf(packet.properties, MESSAGE),
    }));
  },

  publish(request) {
    const options = { qos: request.number("qos"), retain: request.number("retain") === 1 };
    if (client.options.protocolVersion === 5) options.properties = request.properties(MESSAGE);
    client.publish(request.text("topic"), request.binary("payload"), options, (error, packet) => {
      if (error && typeof error.code !== "number") tell("failed", { why: String(error) });
      else tell("published", { reason: error ? error.code : packet?.reasonCode });
    });
  },

  subscribe(request) {
    const options = { qos: request.number("qos") };
    if (client.options.protocolVersion === 5) {
      Object.assign(options, {
        nl: request.number("no_local") === 1, rap: request.number("as_published") === 1, rh: request.number("handling"),
      });
      if (request.has("subid")) options.properties = request.properties({ subid: "subscriptionIdentifier" });
    }
    client.subscribe(request.text("filter"), options, (error, granted, packet) => {
      if (!packet) tell("failed", { why: String(error) });
      else tell("subscribed", { reason: packet.granted });
    });
  },

  unsubscribe(request) {
    client.unsubscribe(request.text("filter"), () => tell("unsubscribed"));
  },

  disconnect() {
    const old = client;
    client = undefined;
    if (old) old.end(!old.connected, {}, () => tell("disconnected"));
    else tell("disconnected");
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => { const request = new Request(line); actions[request.word](request); })
  .on("close", () => process.exit(0));
