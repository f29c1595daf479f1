/** The SDK's session hooks, bound to the message format of the page (AI SDK UI messages). */
import { createSessionHooks } from '@ably/ai-transport/react';
import { createUIMessageCodec, type VercelInput, type VercelOutput, type VercelProjection } from '@ably/ai-transport/vercel';
import type { UIMessage } from 'ai';

export const codec = createUIMessageCodec();

export const { ClientSessionProvider, useClientSession, useView } = createSessionHooks<
  VercelInput,
  VercelOutput,
  VercelProjection,
  UIMessage
>();
