/** Files that go with a message: pictures and texts, made to fit into it. */
import type { UIMessage } from 'ai';

export type FilePart = Extract<UIMessage['parts'][number], { type: 'file' }>;

/** Room for what a message has besides the words and files. */
const OVERHEAD = 2_048;
const IMAGE_EDGES = [1600, 1200, 900, 640, 480, 320] as const;
const QUALITIES = [0.85, 0.7, 0.5];
const TEXT_NAMES = /\.(txt|md|csv|tsv|json|jsonl|ya?ml|toml|ini|xml|html?|css|[cm]?[jt]sx?|py|rb|go|rs|java|kt|swift|c|cc|cpp|h|hpp|cs|php|sh|sql|log|diff|patch|env|cfg|conf|tex)$/i;

/** How many bytes of files fit beside `text` and `others`, in a message of at most `limit` bytes. */
export function roomFor(limit: number, text: string, others: readonly FilePart[]): number {
  const used = new TextEncoder().encode(text).length + others.reduce((sum, file) => sum + file.url.length, 0);
  // Files travel as base64: four letters for three bytes.
  return Math.max(0, Math.floor(((limit - OVERHEAD - used) * 3) / 4));
}

export function inKilobytes(bytes: number): string {
  return bytes < 1_024 ? `${bytes} bytes` : `${Math.floor(bytes / 1_024)} KB`;
}

/** The file as a part of a message. Rejects with a sentence for the person when it cannot be one. */
export async function partOf(file: File, room: number): Promise<FilePart> {
  if (file.type.startsWith('image/') && file.type !== 'image/svg+xml') return imagePart(file, room);
  if (!file.type.startsWith('text/') && file.type !== 'application/json' && !TEXT_NAMES.test(file.name)) {
    throw new Error(`“${file.name}” is neither a picture nor a text file.`);
  }
  if (file.size > room) throw new Error(tooLarge(file, room));
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error(`“${file.name}” is not a text file in UTF-8.`);
  }
  return part(file.name, file.type || 'text/plain', file);
}

function tooLarge(file: File, room: number): string {
  return `“${file.name}” has ${inKilobytes(file.size)}; this message has room for ${inKilobytes(room)}. One message carries its files inside it, and the gateway limits its size.`;
}

async function imagePart(file: File, room: number): Promise<FilePart> {
  if (file.size <= room && /^image\/(png|jpeg|gif|webp|avif)$/.test(file.type)) return part(file.name, file.type, file);
  const picture = await createImageBitmap(file).catch(() => {
    throw new Error(`“${file.name}” is not a picture that this browser can read.`);
  });
  try {
    const longest = Math.min(IMAGE_EDGES[0], Math.max(picture.width, picture.height));
    for (const edge of [longest, ...IMAGE_EDGES.filter((each) => each < longest)]) {
      for (const quality of QUALITIES) {
        const blob = await scaled(picture, edge, quality);
        if (blob && blob.size <= room) return await part(file.name, blob.type, blob);
      }
    }
  } finally {
    picture.close();
  }
  throw new Error(`${tooLarge(file, room)} It does not fit even when it is made smaller.`);
}

function scaled(picture: ImageBitmap, edge: number, quality: number): Promise<Blob | null> {
  const scale = Math.min(1, edge / Math.max(picture.width, picture.height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  canvas.getContext('2d')?.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', quality));
}

async function part(filename: string, mediaType: string, content: Blob): Promise<FilePart> {
  const bytes = new Uint8Array(await content.arrayBuffer());
  let letters = '';
  for (let at = 0; at < bytes.length; at += 8_192) letters += String.fromCharCode(...bytes.subarray(at, at + 8_192));
  // The SDK's format of messages has no place for a file's name, so the address carries it.
  const name = encodeURIComponent(filename).replaceAll("'", '%27');
  return { type: 'file', filename, mediaType, url: `data:${mediaType};name=${name};base64,${btoa(letters)}` };
}

/** The name of a file, from wherever it is known. */
export function nameOf({ filename, url, mediaType }: FilePart): string {
  const [, name] = /^data:[^,]*;name=([^;,]*)/.exec(url) ?? [];
  try {
    return filename ?? (name ? decodeURIComponent(name) : mediaType);
  } catch {
    return mediaType;
  }
}

/** The address of a picture that is in the message itself: no other is loaded, since its host would learn who reads what. */
export function pictureIn(url: string): string | undefined {
  return /^data:image\/(?:png|jpeg|gif|webp|avif)(?:;name=[^;,]*)?;base64,/i.test(url) ? url : undefined;
}
