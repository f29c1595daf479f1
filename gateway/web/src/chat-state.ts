/** Words about turns and errors that several components share. */
import * as Ably from 'ably';
import type { TurnInfo } from 'selfhost-transport/vercel';

/** Whether a turn has no end yet. */
export function isOpen(turn: TurnInfo | undefined): boolean {
  return turn !== undefined && ['waiting', 'active', 'suspended'].includes(turn.status);
}

/** A readable sentence for anything thrown: Ably errors carry a code worth showing. */
export function describe(error: unknown): string {
  if (error instanceof Ably.ErrorInfo) return `${error.message} (${error.code})`;
  return error instanceof Error ? error.message : String(error);
}

/** The beginning of a text, on one line. */
export function shortened(text: string, length = 60): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > length ? `${line.slice(0, length - 1).trimEnd()}…` : line;
}
