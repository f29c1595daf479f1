/** Turns the view of a session into the rows that are drawn. */
import type { UIMessage } from 'ai';
import type { MessageNode, TurnInfo } from 'selfhost-transport/vercel';

export type Part = UIMessage['parts'][number];

/** One drawn row. `turn` is that of the answer; of a question, the one that answers it. */
export interface Row {
  kind: 'question' | 'answer' | 'empty';
  id: string;
  message: UIMessage | undefined;
  turn: TurnInfo | undefined;
  /** Which of several versions is shown, counted from 0. */
  version: number;
  versions: number;
  /** Of an answer apart from its question: the question. */
  replyTo: string | undefined;
  /** The last row of its turn: the place that says how the turn stands. */
  closes: boolean;
  /** Of the row that closes its turn: all that the turn says, also in the rows before. */
  text: string;
  /** Of a message of this page: the gateway has acknowledged it, it is on its way, or it was refused. */
  sending: 'sent' | 'pending' | 'failed';
}

export interface RowSource {
  nodes: readonly MessageNode<UIMessage>[];
  getTurn(id: string): TurnInfo | undefined;
  getSelectedIndex(id: string): number;
  getSiblings(id: string): readonly UIMessage[];
  /** Ids of messages whose sending failed. */
  failed: ReadonlySet<string>;
}

/** The words of a message, without reasoning, tools and files. */
export function textOf(message: UIMessage): string {
  return message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
}

function hasContent(message: UIMessage): boolean {
  return message.parts.some((part) => {
    if (part.type === 'text' || part.type === 'reasoning') return part.text !== '';
    return part.type !== 'step-start';
  });
}

/**
 * The rows of a view, in its order; `before` are those drawn last. A row that has not changed is the same object again,
 * although the SDK changes messages in place.
 *
 * A question whose turn has produced nothing visible is followed by an `empty` row: it waits, works, or was stopped
 * before its first word.
 */
export function rowsOf(source: RowSource, before: readonly Row[]): Row[] {
  const known = new Map(before.map((row) => [row.id, row]));
  const rows = listRows(source, known);
  const last = new Map<string, number>();
  const said = new Map<string, string[]>();
  rows.forEach((row, index) => {
    if (row.kind === 'question' || !row.turn) return;
    last.set(row.turn.turnId, index);
    const text = row.message && textOf(row.message);
    if (text) said.set(row.turn.turnId, [...(said.get(row.turn.turnId) ?? []), text]);
  });
  rows.forEach((row, index) => {
    row.closes = row.kind !== 'question' && (!row.turn || last.get(row.turn.turnId) === index);
    if (row.closes && row.turn) row.text = said.get(row.turn.turnId)?.join('\n\n') ?? '';
  });
  const settled = rows.map((row) => {
    const old = known.get(row.id);
    return old && equal(old, row) ? old : row;
  });
  return settled.length === before.length && settled.every((row, index) => row === before[index]) ? (before as Row[]) : settled;
}

function listRows(source: RowSource, known: ReadonlyMap<string, Row>): Row[] {
  const shown = source.nodes.filter(({ message }) => message.role === 'user' || hasContent(message));
  const turns = new Map(shown.map(({ msgId }) => [msgId, source.getTurn(msgId)]));
  const answered = new Set(shown.flatMap(({ msgId, message }) => (message.role === 'user' ? [] : [turns.get(msgId)?.turnId])));
  const questions = new Map<string, { id: string; text: string }>();
  const rows: Row[] = [];
  for (const { msgId: id, message, serial } of shown) {
    const turn = turns.get(id);
    const siblings = source.getSiblings(id).length;
    const row: Row = {
      kind: message.role === 'user' ? 'question' : 'answer',
      id,
      message: snapshot(message, known.get(id)?.message),
      turn,
      versions: siblings,
      version: siblings > 1 ? source.getSelectedIndex(id) : 0,
      replyTo: undefined,
      closes: false,
      text: '',
      sending: serial !== undefined ? 'sent' : source.failed.has(message.id) ? 'failed' : 'pending',
    };
    if (row.kind === 'answer') row.replyTo = replyTo(row, rows.at(-1), turn && questions.get(turn.turnId));
    rows.push(row);
    if (row.kind === 'answer') continue;
    if (turn && !questions.has(turn.turnId)) questions.set(turn.turnId, { id, text: textOf(message) });
    if (row.sending === 'sent' && turn && !answered.has(turn.turnId)) {
      rows.push({ ...row, kind: 'empty', id: `${id}/empty`, message: undefined, versions: 1, version: 0 });
    }
  }
  return rows;
}

function replyTo(row: Row, above: Row | undefined, question: { id: string; text: string } | undefined): string | undefined {
  if (!question || above?.id === question.id) return undefined;
  return above?.kind === 'answer' && above.turn?.turnId === row.turn?.turnId ? undefined : question.text;
}

/** A copy of a message as it is now, or the earlier copy if that still says the same. */
function snapshot(message: UIMessage, before: UIMessage | undefined): UIMessage {
  const parts = message.parts.map((part, index) => {
    const old = before?.parts[index];
    return old && equal(old, part) ? old : { ...part };
  });
  const same = before?.parts.length === parts.length && parts.every((part, index) => part === before.parts[index]);
  return same ? before : ({ ...message, parts } as UIMessage);
}

/** Whether two objects have the same fields, turns compared by what is shown of them. */
function equal(one: object, other: object): boolean {
  const first = one as Record<string, unknown>;
  const second = other as Record<string, unknown>;
  const names = Object.keys(first);
  if (names.length !== Object.keys(second).length) return false;
  return names.every((name) => Object.is(first[name], second[name]) || (name === 'turn' && sameTurn(first[name], second[name])));
}

function sameTurn(one: unknown, other: unknown): boolean {
  const [first, second] = [one, other] as (TurnInfo | undefined)[];
  return first?.turnId === second?.turnId && first?.status === second?.status && first?.clientId === second?.clientId;
}
