/* aedes as a broker by itself: node aedes.mjs PORT HOST [CHAIN KEY AUTHORITIES mutual|server].
 *
 * The rule it keeps: it adds nothing to aedes but a socket. */
import { readFileSync } from "node:fs";
import { createServer as createPlain } from "node:net";
import { createServer as createTls } from "node:tls";
import { Aedes } from "aedes";

const [port, host, chain, key, authorities, who] = process.argv.slice(2);
const aedes = await Aedes.createBroker({ connectTimeout: 60000 });
const server = chain
  ? createTls({ cert: readFileSync(chain), key: readFileSync(key), ca: readFileSync(authorities), requestCert: who === "mutual" }, aedes.handle)
  : createPlain({ noDelay: true }, aedes.handle);
server.listen({ port: Number(port), host, backlog: 1024 });
process.on("SIGTERM", () => process.exit(0));
