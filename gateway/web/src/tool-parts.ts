/**
 * What the page and the SDK use of the package `ai` at run time: the names of tool parts. The bundle has these functions in
 * the place of the package, which would bring its validators along (a third of the page's size).
 */
import type { DynamicToolUIPart, ToolUIPart, UIMessage, UITools } from 'ai';

type AnyToolPart = ToolUIPart<UITools> | DynamicToolUIPart;

export function isToolUIPart(part: UIMessage['parts'][number]): part is AnyToolPart {
  return part.type === 'dynamic-tool' || part.type.startsWith('tool-');
}

export function getToolName(part: AnyToolPart): string {
  return part.type === 'dynamic-tool' ? part.toolName : part.type.slice('tool-'.length);
}
