/* SPDX-License-Identifier: MPL-2.0 */
/* A shared library that is no plugin. */
extern int no_plugin_answer;
int no_plugin_answer = 42;
