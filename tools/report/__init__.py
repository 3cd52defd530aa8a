"""Turn a data set into one page that people can look at: survey it, draw charts and pictures, put them on a page.

`survey` reads, the others only draw. Everything is a pure function of the data set: the same data give the same bytes.
"""
