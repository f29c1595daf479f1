/** What this client may do with turns: send, stop its own, interrupt. */
import type { ClientRun, RunInfo, ViewHandle } from '@ably/ai-transport/react';
import type { VercelInput } from '@ably/ai-transport/vercel';
import type { UIMessage } from 'ai';
import { useCallback, useEffect, useRef, useState } from 'react';
import { codec, useClientSession } from './session';

type Handle = ClientRun<VercelInput, UIMessage>;
type View = ViewHandle<VercelInput, UIMessage>;

/** The verbs the page offers, and the turns they act on. */
export interface Turns {
  /** Turns of any client that are working or waiting for an answer, oldest first. */
  open: RunInfo[];
  /** Whether this client has something to stop. */
  mine: boolean;
  /** True from a stop request until its turns are known to have ended. */
  stopping: boolean;
  send: (text: string) => Promise<void>;
  /** Put a new text in the place of an earlier question, on a branch of its own. */
  edit: (messageId: string, text: string) => Promise<void>;
  regenerate: (messageId: string) => Promise<void>;
  /** Answer a tool call that waits for consent. */
  approve: (messageId: string, runId: string, toolCallId: string, approved: boolean) => Promise<void>;
  /** Stop every open turn of this client, started or not. */
  stopMine: () => Promise<void>;
  stop: (runId: string) => Promise<void>;
}

function isOpen(run: RunInfo | undefined): boolean {
  return run?.status === 'active' || run?.status === 'suspended';
}

/** A user message with an id of its own; the id is what joins copies of it on other devices. */
function question(text: string): VercelInput {
  return codec.createUserMessage({ id: crypto.randomUUID(), role: 'user', parts: [{ type: 'text', text }] });
}

/** Wake the agent. Our own worker needs no waking: the message itself has queued the turn. */
async function wake(wakeUrl: string, handle: Handle): Promise<void> {
  const response = await fetch(wakeUrl, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(handle.toInvocation().toJSON()),
  });
  if (!response.ok) throw new Error(`The message was sent, but waking the agent failed: ${response.status}.`);
}

/**
 * The turns of the session as `view` shows them, and what can be done with them.
 *
 * `client` is this page's client id, `report` receives errors that belong to no button.
 */
export function useTurns(view: View, client: string, wakeUrl: string, report: (error: unknown) => void): Turns {
  const { session } = useClientSession();
  // Sends whose turn no agent has begun: they have no run id yet, only the handle can cancel them.
  const [unstarted, setUnstarted] = useState<Handle[]>([]);
  const [stopped, setStopped] = useState<ReadonlySet<string>>(new Set());

  const track = useCallback(
    (handle: Handle): void => {
      setUnstarted((handles) => [...handles, handle]);
      const forget = (): void => setUnstarted((handles) => handles.filter((other) => other !== handle));
      handle.started.then(forget, forget);
      wake(wakeUrl, handle).catch(report);
    },
    [wakeUrl, report],
  );

  const open = view.runs().filter(isOpen);
  const own = open.filter((run) => run.clientId === client);
  // A turn cancelled before it began never resolves `started` where the gateway ends it unopened.
  const waiting = unstarted.filter((handle) => {
    const run = view.runOf(handle.inputCodecMessageId);
    return run === undefined || isOpen(run);
  });
  const latest = useRef({ own, waiting });
  useEffect(() => {
    latest.current = { own, waiting };
  });

  const stopMine = useCallback(async (): Promise<void> => {
    const { own, waiting } = latest.current;
    setStopped(new Set(own.map((run) => run.runId)));
    const unopened = waiting.filter((handle) => !own.some((run) => run.runId === handle.runId));
    await Promise.all([...own.map((run) => session.cancel(run.runId)), ...unopened.map((handle) => handle.cancel())]);
    setUnstarted((handles) => handles.filter((handle) => !unopened.includes(handle)));
  }, [session]);

  const approve: Turns['approve'] = async (messageId, runId, toolCallId, approved) =>
    track(await view.send(codec.createToolApprovalResponse(messageId, { toolCallId, approved }), { runId }));
  return {
    open,
    mine: own.length + waiting.length > 0,
    stopping: own.length > 0 && own.every((run) => stopped.has(run.runId)),
    send: async (text) => track(await view.send(question(text))),
    edit: async (messageId, text) => track(await view.edit(messageId, question(text))),
    regenerate: async (messageId) => track(await view.regenerate(messageId)),
    approve,
    stopMine,
    stop: (runId) => session.cancel(runId),
  };
}
