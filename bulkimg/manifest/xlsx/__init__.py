"""Read one sheet of an .xlsx workbook as a table.

Values and everything that could mislead (hidden rows, formulas, number formats, merged cells) come from one reading of
the sheet's XML. No library is needed: python-calamine was tried, but it hides all of these, reads only usual part
names, and aborts the process on a small workbook with one cell in the last corner.
"""
