// The connection to the server (protocol in ../README.md): text frames are objects, binary frames arrays with a header.
// Tries again for ever; a connection on which nothing comes for 5 s is given up, whatever the system says of it.

const PROTOCOL = "operando.live.1";
const SILENT_MS = 5000;
const WAITS_MS = [1000, 2000, 4000, 8000, 15000];
const KINDS = {
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i2: Int16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array,
};

/** Return {header, arrays} of a binary frame: {name: {shape, data}}; throws on one that is not whole. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const begin = 4 + length;
  const { arrays: told = {}, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  for (const [name, { dtype, shape, offset, bytes }] of Object.entries(told)) {
    const Kind = KINDS[dtype];
    if (!Kind) throw new TypeError(`array of ${dtype}`);
    const count = bytes / Kind.BYTES_PER_ELEMENT;
    const at = begin + offset;
    // A copy where it is not aligned; else a view, for nothing else lives in this buffer.
    const data = at % Kind.BYTES_PER_ELEMENT ? new Kind(buffer.slice(at, at + bytes)) : new Kind(buffer, at, count);
    arrays[name] = { shape, data };
  }
  return { header, arrays };
}

export class Feed {
  /** ``on``: {message(object), frame(header, arrays), up(), down(why)}. */
  constructor(on) {
    this.on = on;
    this.tries = 0;
    this.heard = 0;
    this.socket = null;
    this.problems = 0; // frames that could not be read
    setInterval(() => this.look(), 1000);
    addEventListener("online", () => this.soon());
    document.addEventListener("visibilitychange", () => document.hidden || this.soon());
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    this.timer = null;
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`, PROTOCOL);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heard = performance.now();
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      this.heard = performance.now();
      this.tries = 0;
      this.take(data);
    };
    socket.onclose = ({ code, reason }) => socket === this.socket && this.lost(why(code, reason));
  }

  take(data) {
    try {
      if (typeof data === "string") this.on.message(JSON.parse(data));
      else {
        const { header, arrays } = unpack(data);
        this.on.frame(header, arrays);
      }
    } catch (error) {
      this.problems += 1;
      if (this.problems <= 5) console.error("a frame could not be read", error);
    }
  }

  /** Ask for a product once more: the newest, or that of a finished pass. */
  resend(stream, scan, pass) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ k: "resend", stream, scan, pass }));
  }

  look() {
    if (this.socket && performance.now() - this.heard > SILENT_MS) {
      const silent = this.socket;
      this.lost("the server of this page is silent");
      silent.close();
    }
  }

  lost(reason) {
    if (!this.socket) return;
    this.socket = null;
    this.on.down(reason);
    this.timer = setTimeout(() => this.open(), WAITS_MS[Math.min(this.tries, WAITS_MS.length - 1)]);
    this.tries += 1;
  }

  soon() {
    if (!this.socket && this.timer) this.open();
  }
}

function why(code, reason) {
  const known = {
    1000: "the server of this page has ended", 1008: "this page may not look: log in again", 1013: "too many viewers",
  };
  return known[code] ?? (reason || "no connection to the server of this page");
}
