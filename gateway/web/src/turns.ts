/** What this person may do in the session: send, stop, edit, answer again, approve; and what is running. */
import type { UIMessage } from 'ai';
import { type ClientTransport, ErrorCode } from 'selfhost-transport/vercel';
import type { ViewHandle } from 'selfhost-transport/react';
import { useCallback, useEffect, useState } from 'react';
import { announce } from './announcer';
import { describe, shortened } from './chat-state';
import { type Row, textOf } from './rows';
import type { RunningTurn } from './turns-panel';

export type View = ViewHandle<UIMessage, unknown>;
export type Transport = ClientTransport<UIMessage, unknown>;

/** The longest part of an answer that is read out. */
const READ_OUT = 1_000;

export function runningTurns(transport: Transport, active: ReadonlyMap<string, Set<string>>, rows: readonly Row[], me: string): RunningTurn[] {
  const questions = new Map<string, string>();
  for (const { kind, turn, message } of rows) {
    if (kind === 'question' && turn && message && !questions.has(turn.turnId)) questions.set(turn.turnId, shortened(textOf(message)));
  }
  // What has not left this browser yet runs nowhere.
  const unsent = new Set(rows.filter(({ sending }) => sending !== 'sent').map(({ turn }) => turn?.turnId));
  const running = new Set([...active.values()].flatMap((ids) => [...ids]));
  return [...running].filter((turnId) => !unsent.has(turnId)).map((turnId) => {
    const turn = transport.tree.getTurn(turnId);
    const owner = turn?.clientId ?? '';
    return { turnId, owner, mine: owner === me, question: questions.get(turnId), suspended: turn?.status === 'suspended' };
  });
}

/** Tell a screen reader how all answers go. `onEnd` is called after each. */
export function useAnnouncedTurns(transport: Transport, onEnd: () => void): void {
  useEffect(
    () =>
      transport.tree.on('turn', (event) => {
        if (event.type === 'x-ably-turn-start') return announce('An answer begins');
        onEnd();
        if (event.reason === 'cancelled') return announce('The answer was stopped');
        if (event.reason === 'error') return announce(`The answer failed: ${failureOf(transport, event.turnId)}`, { urgent: true });
        announce(`The answer is complete. ${answerOf(transport, event.turnId)}`);
      }),
    [transport, onEnd],
  );
}

function failureOf(transport: Transport, turnId: string): string {
  return transport.tree.getTurn(turnId)?.error?.message ?? '';
}

function answerOf(transport: Transport, turnId: string): string {
  const { view } = transport;
  const own = view.flattenNodes().filter(({ msgId, message }) => message.role === 'assistant' && view.getTurn(msgId)?.turnId === turnId);
  return shortened(own.map(({ message }) => textOf(message)).join(' '), READ_OUT);
}

export interface Stopping {
  stopping: boolean;
  stopMine: () => Promise<void>;
  stop: (turnId: string) => Promise<void>;
}

export function useStopping(transport: Transport): Stopping {
  const [stopping, setStopping] = useState(false);
  const stopMine = useCallback(async () => {
    setStopping(true);
    await transport.cancel().finally(() => setStopping(false));
  }, [transport]);
  const stop = useCallback((turnId: string) => transport.cancel({ turnId }), [transport]);
  return { stopping, stopMine, stop };
}

export interface Problem {
  problem: string | undefined;
  /** Show why an action failed, if it does; resolves to whether it worked. */
  guard: (action: Promise<unknown>) => Promise<boolean>;
  report: (error: unknown) => void;
  dismiss: () => void;
}

export function useProblem(): Problem {
  const [problem, setProblem] = useState<string>();
  const report = useCallback((error: unknown) => setProblem(describe(error)), []);
  const dismiss = useCallback(() => setProblem(undefined), []);
  const guard = useCallback(
    async (action: Promise<unknown>): Promise<boolean> => {
      try {
        await action;
        setProblem(undefined);
        return true;
      } catch (error) {
        report(error);
        return false;
      }
    },
    [report],
  );
  return { problem, guard, report, dismiss };
}

/**
 * Show an error of the transport, unless it is shown where it belongs already: at the message that was not sent, or in the
 * conversation as the end of a turn.
 */
export function reportUnlessShown(error: { code: number; message: string }, transport: Transport, report: Problem['report']): void {
  if (error.code === ErrorCode.TransportSendFailed) return;
  // The turn's end reaches the tree in the same task.
  setTimeout(() => {
    const { view } = transport;
    const isShown = view.flattenNodes().some(({ msgId }) => view.getTurn(msgId)?.error?.message === error.message);
    if (!isShown) report(error);
  }, 0);
}
