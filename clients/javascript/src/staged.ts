import type { Core } from './core.js';
import { sendFailed } from './errors.js';
import { updateInput } from './inputs.js';
import type { InnerView } from './types.js';

/**
 * Send what is staged: together with `inputs` if it belongs to the turn `turnId`, before anything else if to another one.
 * A turn that takes no more answers is reported to the listeners of errors, and does not keep the rest from being sent.
 */
export async function sendStaged<TMessage>(
  core: Core<TMessage>, view: InnerView<TMessage>, turnId?: string, inputs: readonly unknown[] = [],
): Promise<void> {
  const staged = core.overlay.takeStaged();
  const byTurn = new Map<string, unknown[]>();
  for (const { msgId, event } of staged) {
    const node = core.tree.getNodeByCodecMessageId(msgId);
    const owner = node?.kind === 'run' ? node.runId : undefined;
    if (owner !== undefined) byTurn.set(owner, [...(byTurn.get(owner) ?? []), updateInput(core.codec, msgId, event)]);
  }
  const send = (runId: string, all: readonly unknown[]) => view.send(all as never, { runId });
  try {
    const others = [...byTurn].filter(([runId]) => runId !== turnId);
    await Promise.all(others.map(([runId, all]) => send(runId, all).catch((error) => core.errors.emit(sendFailed(error)))));
    if (turnId !== undefined) await send(turnId, [...(byTurn.get(turnId) ?? []), ...inputs]);
  } finally {
    core.overlay.sent(staged);
  }
}
