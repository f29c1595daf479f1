/** Turns the SDK's linear view into the rows that are drawn: messages, and stand-ins for answers without words. */
import type { CodecMessage, RunInfo } from '@ably/ai-transport/react';
import type { UIMessage } from 'ai';

/** One drawn row. `run` is the turn that owns it: of an assistant row its own, of a question the turn answering it. */
export type Row =
  | { kind: 'question'; id: string; message: UIMessage; run: RunInfo | undefined }
  | { kind: 'answer'; id: string; message: UIMessage; run: RunInfo | undefined; replyTo: string | null }
  | { kind: 'empty'; id: string; run: RunInfo | undefined };

type RunOf = (codecMessageId: string) => RunInfo | undefined;

/** The words of a message, without reasoning, tools and files. */
export function textOf(message: UIMessage): string {
  return message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
}

/** Whether anything of an answer can be seen yet. */
function hasContent(message: UIMessage): boolean {
  return message.parts.some((part) => {
    if (part.type === 'text' || part.type === 'reasoning') return part.text !== '';
    return part.type !== 'step-start';
  });
}

/**
 * The rows of a view, in its order.
 *
 * A question whose turn has produced nothing visible is followed by an `empty` row, which shows that the turn is
 * waiting, working, or was stopped before its first word. An answer that does not directly follow its question
 * (turns run side by side) carries that question's text in `replyTo`.
 */
export function rowsOf(messages: CodecMessage<UIMessage>[], runOf: RunOf): Row[] {
  const shown = messages.filter(({ message }) => message.role === 'user' || hasContent(message));
  const answered = new Set<string>();
  for (const { codecMessageId, message } of shown) {
    const run = message.role === 'user' ? undefined : runOf(codecMessageId);
    if (run) answered.add(run.runId);
  }
  const questionOf = new Map<string, { id: string; text: string }>();
  const rows: Row[] = [];
  for (const { codecMessageId: id, message } of shown) {
    const run = runOf(id);
    if (message.role !== 'user') {
      const question = run && questionOf.get(run.runId);
      const follows = !question || rows.at(-1)?.id === question.id || sameRun(rows.at(-1), run);
      rows.push({ kind: 'answer', id, message, run, replyTo: follows ? null : question.text });
      continue;
    }
    rows.push({ kind: 'question', id, message, run });
    if (run && !questionOf.has(run.runId)) questionOf.set(run.runId, { id, text: textOf(message) });
    if (!run || !answered.has(run.runId)) rows.push({ kind: 'empty', id: `${id}/empty`, run });
  }
  return rows;
}

function sameRun(row: Row | undefined, run: RunInfo | undefined): boolean {
  return row !== undefined && row.kind === 'answer' && row.run?.runId === run?.runId;
}
