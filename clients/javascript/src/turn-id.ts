/**
 * A turn's id follows from the session and the message that starts the turn, so it is known before anything is
 * acknowledged, a repeated send names the same turn, and a cancel may overtake its send.
 */

const NAMESPACE = '5d6e7a0e-3f57-5c1b-9d4e-8f0a3c2b1d11';

/** The id of the turn that `inputId` starts in `session`: a UUID of version 5. */
export function turnIdOf(session: string, inputId: string): string {
  const namespace = Uint8Array.from(NAMESPACE.replaceAll('-', '').match(/../g)!, (pair) => Number.parseInt(pair, 16));
  // A NUL ends the session's name; for a name with NULs its length is used instead.
  const start = session.includes('\0') ? `turn of ${[...session].length}` : 'turn';
  const name = new TextEncoder().encode(`${start}\0${session}\0${inputId}`);
  const bytes = sha1(new Uint8Array([...namespace, ...name])).slice(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x50;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

// Not crypto.subtle: it is missing in pages that are served without TLS from another host than localhost.
function sha1(message: Uint8Array): Uint8Array {
  const padded = new Uint8Array((((message.length + 8) >> 6) + 1) << 6);
  padded.set(message);
  padded[message.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 4, message.length << 3);
  const state = new Uint32Array([0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0]);
  const words = new Uint32Array(80);
  for (let block = 0; block < padded.length; block += 64) {
    for (let i = 0; i < 16; i++) words[i] = view.getUint32(block + 4 * i);
    for (let i = 16; i < 80; i++) words[i] = rotate(words[i - 3]! ^ words[i - 8]! ^ words[i - 14]! ^ words[i - 16]!, 1);
    let [a, b, c, d, e] = state as unknown as [number, number, number, number, number];
    for (let i = 0; i < 80; i++) {
      const [mix, constant] =
        i < 20 ? [(b & c) | (~b & d), 0x5a827999]
        : i < 40 ? [b ^ c ^ d, 0x6ed9eba1]
        : i < 60 ? [(b & c) | (b & d) | (c & d), 0x8f1bbcdc]
        : [b ^ c ^ d, 0xca62c1d6];
      const next = (rotate(a, 5) + mix + e + constant + words[i]!) >>> 0;
      [e, d, c, b, a] = [d, c, rotate(b, 30), a, next];
    }
    [a, b, c, d, e].forEach((value, i) => (state[i] = state[i]! + value));
  }
  const digest = new DataView(new ArrayBuffer(20));
  state.forEach((word, i) => digest.setUint32(4 * i, word));
  return new Uint8Array(digest.buffer);
}

function rotate(word: number, by: number): number {
  return ((word << by) | (word >>> (32 - by))) >>> 0;
}
