import type { Core } from './core.js';
import type { InnerView, MessageNode, Pair } from './types.js';

/** The node of a message that a view of `@ably/ai-transport` shows. */
export function nodeOf<TMessage>(core: Core<TMessage>, { codecMessageId, message }: Pair<TMessage>): MessageNode<TMessage> {
  const inner = core.tree.getNodeByCodecMessageId(codecMessageId);
  const isInput = inner?.kind === 'input';
  return {
    kind: 'message',
    msgId: codecMessageId,
    id: codecMessageId,
    message: core.overlay.messageOf(core.codec, inner?.projection, { codecMessageId, message }),
    parentId: inner?.parentCodecMessageId,
    forkOf: isInput ? inner.forkOf : (inner?.forkOf ?? inner?.regeneratesCodecMessageId),
    headers: core.headersOf(codecMessageId) ?? {},
    serial: isInput ? inner.serial : inner?.startSerial,
  };
}

/** The codec-message-id that `id` means: it may also be the id of a message that `view` shows. */
export function resolveId<TMessage>(core: Core<TMessage>, view: InnerView<TMessage>, id: string): string {
  if (core.tree.getNodeByCodecMessageId(id) || core.overlay.getLocal(id)) return id;
  const shown = view.getMessages().find(({ message }) => (message as { id?: string }).id === id);
  return shown?.codecMessageId ?? id;
}
